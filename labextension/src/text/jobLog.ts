/** The logs of one or more ranks as one stream: lines in the order in which they came, searchable, with the first error. */

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

interface ILine {
  file: LogFile;
  number: number;
  lower?: string;
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

  /** Number of lines that are kept. */
  get count(): number {
    return this._lines.length;
  }
  /** Number of older lines that were dropped. */
  get dropped(): number {
    return this._dropped;
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
    this._dropped = this._scanned = 0;
    this._firstError = -1;
    this._taken.clear();
    this._files.forEach(file => file.restart());
    this._changed.emit();
  }

  setShown(isShown: boolean): void {
    this._files.forEach(file => file.setShown(isShown));
  }

  rankOf(index: number): number {
    return this._lines[index]!.file.rank;
  }

  /** The line's number in its own log, from 1. */
  numberOf(index: number): number {
    return this._lines[index]!.number + 1;
  }

  pieces(index: number): IPiece[] {
    const { file, number } = this._lines[index]!;
    return number < file.dropped ? [] : file.pieces(number - file.dropped);
  }

  /** Without colours. */
  plain(index: number): string {
    const { file, number } = this._lines[index]!;
    return number < file.dropped ? '' : plain(file.lines[number - file.dropped]!);
  }

  /** Lines that have the text, in whatever case. */
  find(text: string): number[] {
    const wanted = text.toLowerCase();
    const found: number[] = [];
    if (wanted !== '') {
      for (let index = 0; index < this._lines.length; index += 1) {
        const line = this._lines[index]!;
        line.lower ??= this.plain(index).toLowerCase();
        if (line.lower.includes(wanted)) {
          found.push(index);
        }
      }
    }
    return found;
  }

  /** The first line that looks like an error; -1 when none does. */
  firstError(): number {
    for (; this._firstError < 0 && this._scanned < this._lines.length; this._scanned += 1) {
      if (isError(this.plain(this._scanned))) {
        this._firstError = this._scanned;
      }
    }
    return this._firstError;
  }

  /** All kept lines without colours; `prefix` stands before each. */
  text(prefix: (rank: number) => string): string {
    return this._lines.map((line, index) => prefix(line.file.rank) + this.plain(index) + '\n').join('');
  }

  private _take(file: LogFile): void {
    for (let number = Math.max(this._taken.get(file) ?? 0, file.dropped); number < file.total; number += 1) {
      this._lines.push({ file, number });
    }
    this._taken.set(file, file.total);
    const tooMany = this._lines.length - MOST_LINES;
    if (tooMany > 0) {
      this._lines.splice(0, tooMany);
      this._dropped += tooMany;
      this._scanned = Math.max(0, this._scanned - tooMany);
      this._firstError = this._firstError < tooMany ? -1 : this._firstError - tooMany;
    }
    this._changed.emit();
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _files: readonly LogFile[];
  private _lines: ILine[] = [];
  /** Lines of each file that are in `_lines`, or were. */
  private readonly _taken = new Map<LogFile, number>();
  private _dropped = 0;
  /** Lines that were looked at for an error. */
  private _scanned = 0;
  private _firstError = -1;
  private _isDisposed = false;
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
