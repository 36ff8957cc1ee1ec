/** Work that is requested often and done seldom. */

/**
 * Runs `work` at once when idle, and once more after `gapMs` however often it was requested meanwhile. Never two at a time.
 */
export class Throttle {
  constructor(
    private readonly _work: () => Promise<void>,
    private readonly _gapMs: number
  ) {}

  trigger(): void {
    if (this._isDisposed) {
      return;
    }
    if (this._isBusy) {
      this._isRequested = true;
      return;
    }
    this._isBusy = true;
    this._isRequested = false;
    void this._work().finally(() => {
      this._timer = setTimeout(() => {
        this._isBusy = false;
        if (this._isRequested) {
          this.trigger();
        }
      }, this._gapMs);
    });
  }

  dispose(): void {
    this._isDisposed = true;
    clearTimeout(this._timer);
  }

  private _isBusy = false;
  private _isRequested = false;
  private _isDisposed = false;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}
