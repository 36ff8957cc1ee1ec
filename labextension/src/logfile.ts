/** A log as it is read: whole lines fetched in pages, the newest kept, followed until its pod has ended. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { type IPiece, type IStyle, parseLine, plain } from './ansi';
import { Refusal } from './client';
import { messageOf } from './model';
import type { IModel } from './tokens';

export const MOST_LINES = 50_000;
const PAGE = 2000;
const FOLLOW_MS = 700;
const RETRY_MS = 3000;

export class LogFile implements IDisposable {
  constructor(
    private readonly _model: Pick<IModel, 'logs'>,
    readonly jobId: string,
    readonly rank: number
  ) {}

  /** The newest lines as they came, at most MOST_LINES. */
  get lines(): readonly string[] {
    return this._lines;
  }
  /** How many older lines are not kept. */
  get dropped(): number {
    return this._dropped;
  }
  get isEnd(): boolean {
    return this._isEnd;
  }
  /** Why nothing more comes at the moment, in one sentence. */
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

  /** Fetch what there is, and go on until the end or until disposed. */
  start(): void {
    clearTimeout(this._timer);
    void this._read();
  }

  /** The job runs again, or its next attempt does. */
  restart(): void {
    this._lines = [];
    this._styles = [{}];
    this._dropped = this._next = 0;
    this._isEnd = false;
    this._generation += 1;
    this.start();
  }

  /** Line `index` of `lines` with its colours; a colour that an earlier line set goes on. */
  pieces(index: number): IPiece[] {
    for (let known = this._styles.length; known <= index; known += 1) {
      this._styles.push(parseLine(this._lines[known - 1]!, this._styles[known - 1]).end);
    }
    return parseLine(this._lines[index]!, this._styles[index]).pieces;
  }

  /** Without colours. */
  text(): string {
    return this._lines.map(plain).join('\n') + '\n';
  }

  private async _read(): Promise<void> {
    const generation = this._generation;
    let pause = FOLLOW_MS;
    try {
      const page = await this._model.logs(this.jobId, this.rank, this._next, PAGE);
      if (this._isDisposed || generation !== this._generation) {
        return;
      }
      if (page.lines.length > 0) {
        this._add(page.lines);
      }
      const isMore = page.lines.length === PAGE;
      this._next = page.next;
      this._isEnd = page.is_end && !isMore;
      pause = isMore ? 0 : FOLLOW_MS;
      const hadProblem = this._problem !== '';
      this._problem = '';
      if (page.lines.length > 0 || this._isEnd || hadProblem) {
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

  private _add(lines: readonly string[]): void {
    this._lines = [...this._lines, ...lines];
    const tooMany = this._lines.length - MOST_LINES;
    if (tooMany > 0) {
      this.pieces(tooMany);
      this._styles = this._styles.slice(tooMany);
      this._lines = this._lines.slice(tooMany);
      this._dropped += tooMany;
    }
  }

  private readonly _changed = new Signal<this, void>(this);
  private _lines: string[] = [];
  /** Of each line's beginning, as far as somebody looked. */
  private _styles: IStyle[] = [{}];
  private _dropped = 0;
  private _next = 0;
  private _isEnd = false;
  private _problem = '';
  private _generation = 0;
  private _isDisposed = false;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}
