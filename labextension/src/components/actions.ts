/** Actions of buttons, keys and commands, with the confirmation before and the error message after. */

import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import { messageOf } from '../model/client';
import type { IModel, Job } from '../model/tokens';
import { namesBody } from './names';

/** Requests of one action on many jobs. */
const AT_ONCE = 8;

/** Shared by the panel, the log tab, the graph and the commands. */
export interface IActions {
  openJob(id: string): void;
  openLogs(id: string): void;
  openRun(id: string): void;
  openBoard(id: string): void;
  cancelJob(id: string, ask?: Ask): Promise<void>;
  retryJob(id: string, ask?: Ask): Promise<void>;
  /** Asks always. Whether the job was deleted. */
  deleteJob(id: string): Promise<boolean>;
  /** Many at once, after one question that names them. Whether it was confirmed; what failed is said. */
  cancelJobs(jobs: readonly Job[]): Promise<boolean>;
  retryJobs(jobs: readonly Job[]): Promise<boolean>;
  deleteJobs(jobs: readonly Job[]): Promise<boolean>;
  cancelRun(id: string, ask?: Ask): Promise<void>;
  retryRun(id: string, ask?: Ask): Promise<void>;
  startControlPlane(): Promise<void>;
}

/**
 * `setting`: ask as the user's settings say. `always`: a link in a document may call it, so the user has to confirm.
 */
export type Ask = 'setting' | 'always';

export interface ITabs {
  openJob(id: string): void;
  openLogs(id: string): void;
  openRun(id: string): void;
  openBoard(id: string): void;
}

export interface IConfirmSettings {
  confirmCancel: boolean;
}

export class Actions implements IActions {
  constructor(
    private readonly _model: IModel,
    private readonly _tabs: ITabs,
    private readonly _settings: IConfirmSettings,
    private readonly _trans: TranslationBundle
  ) {}

  openJob(id: string): void {
    this._tabs.openJob(id);
  }

  openLogs(id: string): void {
    this._tabs.openLogs(id);
  }

  openRun(id: string): void {
    this._tabs.openRun(id);
  }

  openBoard(id: string): void {
    this._tabs.openBoard(id);
  }

  async cancelJob(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const name = this._nameOfJob(id);
    const isConfirmed =
      (ask === 'setting' && !this._settings.confirmCancel) ||
      (await this._confirm(
        trans.__('Cancel job?'),
        trans.__('%1 stops, and what it has not saved is lost.', name),
        trans.__('Keep it'),
        trans.__('Cancel job')
      ));
    if (isConfirmed) {
      await this._try(() => this._model.cancelJob(id));
    }
  }

  async retryJob(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const isConfirmed =
      ask === 'setting' ||
      (await this._confirm(
        trans.__('Run job again?'),
        trans.__('%1 is submitted again, as a new job.', this._nameOfJob(id)),
        trans.__('No'),
        trans.__('Run again')
      ));
    if (isConfirmed) {
      await this._try(() => this._model.retryJob(id));
    }
  }

  async deleteJob(id: string): Promise<boolean> {
    const trans = this._trans;
    const isConfirmed = await this._confirm(
      trans.__('Delete job?'),
      trans.__('%1 goes from the list, and its log and results with it.', this._nameOfJob(id)),
      trans.__('Keep it'),
      trans.__('Delete')
    );
    return isConfirmed && (await this._try(() => this._model.deleteJob(id)));
  }

  cancelJobs(jobs: readonly Job[]): Promise<boolean> {
    const trans = this._trans;
    return this._many(
      jobs,
      jobs.length === 1 ? trans.__('Cancel job?') : trans.__('Cancel %1 jobs?', jobs.length),
      trans.__('They stop, and what they have not saved is lost.'),
      trans.__('Keep them'),
      trans.__('Cancel them'),
      id => this._model.cancelJob(id)
    );
  }

  retryJobs(jobs: readonly Job[]): Promise<boolean> {
    const trans = this._trans;
    return this._many(
      jobs,
      jobs.length === 1 ? trans.__('Run job again?') : trans.__('Run %1 jobs again?', jobs.length),
      trans.__('Each is submitted again, as a new job.'),
      trans.__('No'),
      trans.__('Run again'),
      id => this._model.retryJob(id)
    );
  }

  deleteJobs(jobs: readonly Job[]): Promise<boolean> {
    const trans = this._trans;
    return this._many(
      jobs,
      jobs.length === 1 ? trans.__('Delete job?') : trans.__('Delete %1 jobs?', jobs.length),
      trans.__('They go from the list, and their logs and results with them.'),
      trans.__('Keep them'),
      trans.__('Delete them'),
      id => this._model.deleteJob(id)
    );
  }

  async cancelRun(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const isConfirmed =
      (ask === 'setting' && !this._settings.confirmCancel) ||
      (await this._confirm(
        trans.__('Cancel run?'),
        trans.__('The nodes of %1 that run are stopped, and no further one starts.', this._nameOfRun(id)),
        trans.__('Keep it'),
        trans.__('Cancel run')
      ));
    if (isConfirmed) {
      await this._try(() => this._model.cancelRun(id));
    }
  }

  async retryRun(id: string, ask: Ask = 'setting'): Promise<void> {
    const trans = this._trans;
    const isConfirmed =
      ask === 'setting' ||
      (await this._confirm(
        trans.__('Go on with run?'),
        trans.__('What did not end well in %1, and what follows it, runs again.', this._nameOfRun(id)),
        trans.__('No'),
        trans.__('Run again')
      ));
    if (isConfirmed) {
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

  private async _many(
    jobs: readonly Job[],
    title: string,
    body: string,
    no: string,
    yes: string,
    work: (id: string) => Promise<unknown>
  ): Promise<boolean> {
    const names = jobs.map(job => job.name);
    if (!(await this._confirm(title, namesBody(body, names, this._trans), no, yes))) {
      return false;
    }
    const problems: string[] = [];
    const left = jobs.map(job => job.id);
    const next = async (): Promise<void> => {
      for (let id = left.shift(); id !== undefined; id = left.shift()) {
        try {
          await work(id);
        } catch (error) {
          problems.push(messageOf(error));
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
    if (problems.length > 0) {
      Notification.error(this._trans.__('%1 of %2 did not work: %3', problems.length, jobs.length, problems[0]!), { autoClose: 8000 });
    }
    return true;
  }

  private async _confirm(title: string, body: Dialog.Body<unknown>, no: string, yes: string): Promise<boolean> {
    const answer = await showDialog({
      title,
      body,
      buttons: [Dialog.cancelButton({ label: no }), Dialog.warnButton({ label: yes })],
      // Enter must not do what cannot be undone.
      defaultButton: 0
    });
    return answer.button.accept;
  }

  /** Whether it went well; if not, it was said. */
  private async _try(work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      Notification.error(messageOf(error), { autoClose: 8000 });
      return false;
    }
  }
}
