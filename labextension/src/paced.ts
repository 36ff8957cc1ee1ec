/** Work that is asked for often and done seldom. */

/**
 * Runs `work` at once when it is idle, and once more after `gapMs` however often it was asked for meanwhile. Never twice at a time.
 */
export class Paced {
  constructor(
    private readonly _work: () => Promise<void>,
    private readonly _gapMs: number
  ) {}

  ask(): void {
    if (this._isDisposed) {
      return;
    }
    if (this._isBusy) {
      this._isAsked = true;
      return;
    }
    this._isBusy = true;
    this._isAsked = false;
    void this._work().finally(() => {
      this._timer = setTimeout(() => {
        this._isBusy = false;
        if (this._isAsked) {
          this.ask();
        }
      }, this._gapMs);
    });
  }

  dispose(): void {
    this._isDisposed = true;
    clearTimeout(this._timer);
  }

  private _isBusy = false;
  private _isAsked = false;
  private _isDisposed = false;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}
