/** Reads the log of one pod: fetches whole lines in pages, keeps the newest, follows it until the pod has ended. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { messageOf, Refusal } from '../model/client';
import type { IModel, LogPage } from '../model/tokens';
import { type IPiece, type IStyle, parseLine, plain } from './ansi';

export const MOST_LINES = 50_000;
export const FOLLOW_MS = 500;
const PAGE = 2000;
const HIDDEN_MS = 5000;
const RETRY_MS = 3000;

/** What differs between files; each has a default. */
export interface ILogFileOptions {
  /** Null: the newest attempt. */
  attempt?: number | null;
  /** Between two requests while nothing new comes. */
  followMs?: number;
  mostLines?: number;
}

export class LogFile implements IDisposable {
  constructor(
    private readonly _model: Pick<IModel, 'logs'>,
    readonly jobId: string,
    readonly rank: number,
    options: ILogFileOptions = {}
  ) {
    this._options = { attempt: null, followMs: FOLLOW_MS, mostLines: MOST_LINES, ...options };
  }

  /** The newest lines as they came. */
  get lines(): readonly string[] {
    return this._lines;
  }
  /** The newest state of the line that is being written, such as a progress bar; empty when there is none. */
  get partial(): string {
    return this._partial;
  }
  /** Number of older lines that were dropped. */
  get dropped(): number {
    return this._dropped;
  }
  /** Number of lines that came. */
  get total(): number {
    return this._dropped + this._lines.length;
  }
  get isEnd(): boolean {
    return this._isEnd;
  }
  /** Why reading fails at present, in one sentence; empty otherwise. */
  get problem(): string {
    return this._problem;
  }
  get changed(): ISignal<this, void> {
    return this._changed;
  }
  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    this._isDisposed = true;
    clearTimeout(this._timer);
    Signal.clearData(this);
  }

  /** Nobody looks at it while it is not shown, so it is fetched seldom. */
  setShown(isShown: boolean): void {
    const isBack = isShown && !this._isShown;
    this._isShown = isShown;
    if (isBack && this._timer !== undefined && !this._isEnd && !this._isDisposed) {
      this.start();
    }
  }

  /** Fetch what there is, then follow until the end or until disposed. */
  start(): void {
    clearTimeout(this._timer);
    void this._read();
  }

  /** Read from the beginning: a new attempt writes a new log. */
  restart(): void {
    this._lines = [];
    this._times = [];
    this._time = null;
    this._styles = [{}];
    this._dropped = this._next = 0;
    this._partial = '';
    this._isEnd = false;
    this._generation += 1;
    this.start();
  }

  /** When line `index` of `lines` was written, in seconds since 1970; null where nobody knows. */
  timeOf(index: number): number | null {
    return this._times[index]!;
  }

  /** Line `index` of `lines` with its colours; a colour that an earlier line set stays in effect. */
  pieces(index: number): IPiece[] {
    return parseLine(this._lines[index]!, this._styleBefore(index)).pieces;
  }

  /** Without colours. */
  text(): string {
    return this._lines.map(plain).join('\n') + '\n';
  }

  /** The line that is being written, with the colours that earlier lines left on. */
  partialPieces(): IPiece[] {
    return parseLine(this._partial, this._styleBefore(this._lines.length)).pieces;
  }

  private async _read(): Promise<void> {
    const generation = this._generation;
    const { attempt, followMs } = this._options;
    let pause = followMs;
    this._timer = undefined;
    try {
      const page = await this._model.logs(this.jobId, this.rank, this._next, PAGE, attempt);
      if (this._isDisposed || generation !== this._generation) {
        return;
      }
      if (page.lines.length > 0) {
        this._add(page);
      }
      const hasMore = page.lines.length === PAGE;
      this._next = page.next;
      this._isEnd = page.is_end && !hasMore;
      pause = hasMore ? 0 : this._isShown ? followMs : HIDDEN_MS;
      const partial = this._isEnd || hasMore ? '' : page.partial;
      const isChanged = page.lines.length > 0 || this._isEnd || this._problem !== '' || partial !== this._partial;
      this._partial = partial;
      this._problem = '';
      if (isChanged) {
        this._changed.emit();
      }
    } catch (error) {
      if (this._isDisposed || generation !== this._generation) {
        return;
      }
      this._problem = messageOf(error);
      pause = RETRY_MS;
      if (error instanceof Refusal && error.status === 404) {
        this._isEnd = true;
      }
      this._changed.emit();
    }
    if (!this._isEnd) {
      this._timer = setTimeout(() => void this._read(), pause);
    }
  }

  private _styleBefore(index: number): IStyle {
    for (let known = this._styles.length; known <= index; known += 1) {
      this._styles.push(parseLine(this._lines[known - 1]!, this._styles[known - 1]).end);
    }
    return this._styles[index]!;
  }

  private _add({ start, lines, times }: LogPage): void {
    this._lines = [...this._lines, ...lines];
    let entry = 0;
    for (let number = start; number < start + lines.length; number += 1) {
      for (; entry < times.length && times[entry]![0] <= number; entry += 1) {
        this._time = times[entry]![1];
      }
      this._times.push(this._time);
    }
    const tooMany = this._lines.length - this._options.mostLines;
    if (tooMany > 0) {
      this._styleBefore(tooMany);
      this._styles = this._styles.slice(tooMany);
      this._lines = this._lines.slice(tooMany);
      this._times = this._times.slice(tooMany);
      this._dropped += tooMany;
    }
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _options: Required<ILogFileOptions>;
  private _lines: string[] = [];
  /** Of each line. */
  private _times: (number | null)[] = [];
  /** Of the newest line. */
  private _time: number | null = null;
  private _partial = '';
  /** The style at the beginning of each line, computed as far as lines were shown. */
  private _styles: IStyle[] = [{}];
  private _dropped = 0;
  private _next = 0;
  private _isEnd = false;
  private _problem = '';
  private _generation = 0;
  private _isShown = true;
  private _isDisposed = false;
  /** Undefined while a request is on its way. */
  private _timer: ReturnType<typeof setTimeout> | undefined;
}
