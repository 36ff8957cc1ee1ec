/** What a click on a button or a key does, with the question before and the message after. */

import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import { messageOf } from '../model';
import type { IModel } from '../tokens';

/** The same for the panel, the log tab, the graph and the commands. */
export interface IActions {
  openLogs(id: string): void;
  openRun(id: string): void;
  openBoard(id: string): Promise<void>;
  cancelJob(id: string, ask?: Ask): Promise<void>;
  retryJob(id: string, ask?: Ask): Promise<void>;
  cancelRun(id: string, ask?: Ask): Promise<void>;
  retryRun(id: string, ask?: Ask): Promise<void>;
  startControlPlane(): Promise<void>;
}

/**
 * `setting`: ask as the user's settings say. `always`: the call may come from a document's link, so a person has to say yes.
 */
export type Ask = 'setting' | 'always';

export interface ITabs {
  openLogs(id: string): void;
  openRun(id: string): void;
  openBoard(id: string, path: string): void;
}

export interface IChoices {
  confirmCancel: boolean;
}

export class Actions implements IActions {
  constructor(
    private readonly _model: IModel,
    private readonly _tabs: ITabs,
    private readonly _choices: IChoices,
    private readonly _trans: TranslationBundle
  ) {}

  openLogs(id: string): void {
    this._tabs.openLogs(id);
  }

  openRun(id: string): void {
    this._tabs.openRun(id);
  }

  async openBoard(id: string): Promise<void> {
    const trans = this._trans;
    const told = Notification.emit(trans.__('Starting TensorBoard…'), 'in-progress', { autoClose: false });
    try {
      this._tabs.openBoard(id, await this._model.openBoard(id));
      Notification.dismiss(told);
    } catch (error) {
      Notification.update({ id: told, message: messageOf(error), type: 'error', autoClose: 8000 });
    }
  }

  async cancelJob(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const name = this._nameOfJob(id);
    const isMeant =
      (ask === 'setting' && !this._choices.confirmCancel) ||
      (await this._confirm(
        trans.__('Cancel job?'),
        trans.__('%1 stops, and what it has not saved is lost.', name),
        trans.__('Keep it'),
        trans.__('Cancel job')
      ));
    if (isMeant) {
      await this._try(() => this._model.cancelJob(id));
    }
  }

  async retryJob(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const isMeant =
      ask === 'setting' ||
      (await this._confirm(
        trans.__('Run job again?'),
        trans.__('%1 is submitted again, as a new job.', this._nameOfJob(id)),
        trans.__('No'),
        trans.__('Run again')
      ));
    if (isMeant) {
      await this._try(() => this._model.retryJob(id));
    }
  }

  async cancelRun(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const isMeant =
      (ask === 'setting' && !this._choices.confirmCancel) ||
      (await this._confirm(
        trans.__('Cancel run?'),
        trans.__('The nodes of %1 that run are stopped, and no further one starts.', this._nameOfRun(id)),
        trans.__('Keep it'),
        trans.__('Cancel run')
      ));
    if (isMeant) {
      await this._try(() => this._model.cancelRun(id));
    }
  }

  async retryRun(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const isMeant =
      ask === 'setting' ||
      (await this._confirm(
        trans.__('Go on with run?'),
        trans.__('What did not end well in %1, and what follows it, runs again.', this._nameOfRun(id)),
        trans.__('No'),
        trans.__('Run again')
      ));
    if (isMeant) {
      await this._try(() => this._model.retryRun(id));
    }
  }

  async startControlPlane(): Promise<void> {
    await this._try(() => this._model.startControlPlane());
  }

  private _nameOfJob(id: string): string {
    return this._model.job(id)?.name ?? id;
  }

  private _nameOfRun(id: string): string {
    return this._model.run(id)?.name ?? id;
  }

  private async _confirm(title: string, body: string, no: string, yes: string): Promise<boolean> {
    const answer = await showDialog({
      title,
      body,
      buttons: [Dialog.cancelButton({ label: no }), Dialog.warnButton({ label: yes })],
      // Enter must not do what cannot be undone.
      defaultButton: 0
    });
    return answer.button.accept;
  }

  private async _try(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      Notification.error(messageOf(error), { autoClose: 8000 });
    }
  }
}
