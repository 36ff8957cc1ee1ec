/** The logs of one or more ranks as one stream: lines in the order of time, searchable, with the first error. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import type { IModel } from '../model/tokens';
import { type IPiece, plain } from './ansi';
import { FOLLOW_MS, LogFile, MOST_LINES } from './logfile';

/** Ranks that are read together. Each is asked for by itself, so more would be slow. */
export const MOST_TOGETHER = 16;
/** Between two requests for all ranks together. */
const GAP_MS = 90;

/* What Python, loggers, compilers and shells write; not a metric that is called error (`error: 0.12`). */
const ERROR =
  /^Traceback \(most recent call last\)|^\s*[\w.]*(?:Error|Exception|Interrupt)\b(?:$|:)|\b(?:ERROR|FATAL|CRITICAL)\b|\b(?:error|Error|fatal):(?! *[-+]?[\d.])|^panic:|Segmentation fault|(?:^|\s)Killed$|\bout of memory\b/;

export function isError(line: string): boolean {
  return ERROR.test(line);
}

/** A line of one rank. The same object as long as it is kept, wherever it stands. */
export interface ILogLine {
  /** Other than that of every other line. */
  readonly key: number;
  readonly file: LogFile;
  /** In its own log, from 0. */
  readonly number: number;
  /** When it was written, in seconds since 1970; not before those of its rank that stand before it. */
  readonly at: number;
  lower?: string;
  isError?: boolean;
}

export class JobLog implements IDisposable {
  constructor(
    private readonly _model: Pick<IModel, 'logs'>,
    readonly jobId: string,
    ranks: readonly number[],
    attempt: number | null
  ) {
    const followMs = Math.max(FOLLOW_MS, ranks.length * GAP_MS);
    const mostLines = Math.max(2000, Math.floor(MOST_LINES / Math.max(1, ranks.length)));
    this._files = ranks.map(rank => new LogFile(this._model, jobId, rank, { attempt, followMs, mostLines }));
    for (const file of this._files) {
      file.changed.connect(this._take, this);
    }
  }

  /** The lines that are kept. Replaced, never changed in place. */
  get lines(): readonly ILogLine[] {
    return this._lines;
  }
  /** Number of older lines that were dropped. */
  get dropped(): number {
    return this._files.reduce((sum, file) => sum + file.dropped, 0);
  }
  get isEnd(): boolean {
    return this._files.every(file => file.isEnd);
  }
  /** Why reading fails at present, in one sentence; empty otherwise. */
  get problem(): string {
    return this._files.find(file => file.problem !== '')?.problem ?? '';
  }
  get changed(): ISignal<this, void> {
    return this._changed;
  }
  get isDisposed(): boolean {
    return this._isDisposed;
  }
  /** Ranks whose newest line is still being written, with its newest state. */
  get partials(): { rank: number; pieces: IPiece[] }[] {
    return this._files
      .filter(file => file.partial !== '')
      .map(file => ({ rank: file.rank, pieces: file.partialPieces() }));
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this._files.forEach(file => file.dispose());
    Signal.clearData(this);
  }

  start(): void {
    this._files.forEach(file => file.start());
  }

  /** Read from the beginning: a new attempt writes new logs. */
  restart(): void {
    this._lines = [];
    this._taken.clear();
    this._files.forEach(file => file.restart());
    this._changed.emit();
  }

  setShown(isShown: boolean): void {
    this._files.forEach(file => file.setShown(isShown));
  }

  pieces({ file, number }: ILogLine): IPiece[] {
    return file.pieces(number - file.dropped);
  }

  /** Without colours. */
  plain({ file, number }: ILogLine): string {
    return plain(file.lines[number - file.dropped]!);
  }

  /** Places of lines that have the text, in whatever case. */
  find(text: string): number[] {
    const wanted = text.toLowerCase();
    const found: number[] = [];
    if (wanted !== '') {
      for (let index = 0; index < this._lines.length; index += 1) {
        const line = this._lines[index]!;
        line.lower ??= this.plain(line).toLowerCase();
        if (line.lower.includes(wanted)) {
          found.push(index);
        }
      }
    }
    return found;
  }

  /** The place of the first line that looks like an error; -1 when none does. */
  firstError(): number {
    return this._lines.findIndex(line => (line.isError ??= isError(this.plain(line))));
  }

  /** All kept lines without colours; `prefix` stands before each. */
  text(prefix: (rank: number) => string): string {
    return this._lines.map(line => prefix(line.file.rank) + this.plain(line) + '\n').join('');
  }

  private _take(file: LogFile): void {
    const taken = this._taken.get(file) ?? { total: 0, dropped: 0, at: 0 };
    const newest = this._lines[this._lines.length - 1]?.at ?? 0;
    const come: ILogLine[] = [];
    let at = taken.at;
    for (let number = Math.max(taken.total, file.dropped); number < file.total; number += 1) {
      // A line of unknown time stands below what is there when it comes.
      at = Math.max(at, file.timeOf(number - file.dropped) ?? newest);
      come.push({ key: this._nextKey++, file, number, at });
    }
    const kept =
      file.dropped > taken.dropped
        ? this._lines.filter(line => line.file !== file || line.number >= file.dropped)
        : this._lines;
    this._lines = merged(kept, come);
    this._taken.set(file, { total: file.total, dropped: file.dropped, at });
    this._changed.emit();
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _files: readonly LogFile[];
  private _lines: readonly ILogLine[] = [];
  private _nextKey = 0;
  /** What of each file is in `_lines`, or was, and the time of its newest line there. */
  private readonly _taken = new Map<LogFile, { total: number; dropped: number; at: number }>();
  private _isDisposed = false;
}

/** `come`, all of one rank, put into `lines` by time, below those of the same time. */
function merged(lines: readonly ILogLine[], come: readonly ILogLine[]): readonly ILogLine[] {
  if (come.length === 0) {
    return lines;
  }
  let place = lines.length;
  while (place > 0 && lines[place - 1]!.at > come[0]!.at) {
    place -= 1;
  }
  const result = lines.slice(0, place);
  for (const line of come) {
    for (; place < lines.length && lines[place]!.at <= line.at; place += 1) {
      result.push(lines[place]!);
    }
    result.push(line);
  }
  return result.concat(lines.slice(place));
}

const DOWNLOAD_PAGE = 10_000;

/** The whole log of one rank, as far as the service keeps it, in pieces of text without colours. */
export async function wholeLog(
  model: Pick<IModel, 'logs'>,
  id: string,
  rank: number,
  attempt: number | null
): Promise<string[]> {
  const parts: string[] = [];
  for (let start = 0; ; ) {
    const page = await model.logs(id, rank, start, DOWNLOAD_PAGE, attempt);
    if (page.lines.length === 0) {
      return parts;
    }
    parts.push(page.lines.map(plain).join('\n') + '\n');
    start = page.next;
  }
}
