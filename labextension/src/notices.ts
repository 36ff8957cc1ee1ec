/** Tells by Lab's notifications when a job that nobody watches starts after a wait, fails or ends; never more than one in a while. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { DisposableDelegate, type IDisposable } from '@lumino/disposable';
import type { Widget } from '@lumino/widgets';

import { Refusal } from './model/client';
import type { IModel, Job, Part } from './model/tokens';
import { tabOfJob, tabOfLog, tabOfRun, type Tabs } from './tabs';
import { duration, lookOf } from './text/format';
import { Happenings, type IHappening } from './text/happenings';

/** What happens within this time of each other is told together. */
const GATHER_MS = 1500;
/** Between two notifications. */
const GAP_MS = 15_000;
/** Jobs that left the list are asked for one by one, at most so many at a time. */
const MOST_FETCHED = 20;
const CHECK_MS = 3000;
const CLOSE_MS = { good: 10_000, bad: 30_000 };

/** What of a notebook is read here; Lab's own packages for notebooks are not needed for it. */
interface INotebookLike extends Widget {
  content?: { widgets?: readonly (Widget & { model?: { id?: unknown } })[] };
}

export interface INoticeSettings {
  notify: boolean;
}

export function addNotices(
  shell: JupyterFrontEnd.IShell,
  model: IModel,
  tabs: Tabs,
  settings: INoticeSettings,
  showPanel: () => void,
  trans: TranslationBundle
): IDisposable {
  const happenings = new Happenings(Date.now() / 1000);
  let gathered: IHappening[] = [];
  let told = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let checking: ReturnType<typeof setTimeout> | undefined;

  const tell = (): void => {
    timer = undefined;
    const now = gathered.filter(happening => !happening.jobs.every(job => isWatched(job)));
    gathered = [];
    if (now.length > 0 && settings.notify) {
      told = Date.now();
      show(now, tabs, showPanel, trans);
    }
  };
  const take = (_: IModel, jobs: readonly Job[]): void => {
    gathered.push(...happenings.take(jobs));
    if (gathered.length > 0 && timer === undefined) {
      timer = setTimeout(tell, Math.max(GATHER_MS, told + GAP_MS - Date.now()));
    }
  };
  // Ended jobs leave the list when the filter hides them, and no notice says how they ended.
  const check = async (): Promise<void> => {
    checking = undefined;
    const missing = happenings.live.filter(id => model.job(id) === undefined).slice(0, MOST_FETCHED);
    for (const id of missing) {
      try {
        take(model, [await model.fetchJob(id)]);
      } catch (error) {
        if (error instanceof Refusal && error.status === 404) {
          happenings.forget(id);
        } else {
          return;
        }
      }
    }
    if (missing.length === MOST_FETCHED) {
      onChange(model, 'jobs');
    }
  };
  const onChange = (_: IModel, part: Part): void => {
    if (part === 'jobs' && checking === undefined && model.connection === 'up') {
      checking = setTimeout(() => void check(), CHECK_MS);
    }
  };
  /** On screen: its page, its log, the graph that it is a node of, or the cell that sent it. */
  const isWatched = (job: Job): boolean => {
    if (document.visibilityState !== 'visible') {
      return false;
    }
    const runs = model.runs.filter(run => run.nodes.some(node => node.job_id === job.id));
    return tabs.isShown(tabOfJob(job.id), tabOfLog(job.id), ...runs.map(run => tabOfRun(run.id))) || isCellShown(shell, job);
  };
  take(model, model.jobs);
  model.fetched.connect(take);
  model.changed.connect(onChange);
  return new DisposableDelegate(() => {
    clearTimeout(timer);
    clearTimeout(checking);
    model.fetched.disconnect(take);
    model.changed.disconnect(onChange);
  });
}

function isCellShown(shell: JupyterFrontEnd.IShell, job: Job): boolean {
  const cellId = job.labels['cell'];
  if (cellId === undefined || cellId === 'none') {
    return false;
  }
  for (const widget of shell.widgets('main')) {
    const cells = widget.isVisible ? ((widget as INotebookLike).content?.widgets ?? []) : [];
    const cell = cells.find(each => each.model?.id === cellId);
    if (cell !== undefined) {
      const place = cell.node.getBoundingClientRect();
      const frame = widget.node.getBoundingClientRect();
      return cell.isAttached && place.height > 0 && place.bottom > frame.top && place.top < frame.bottom;
    }
  }
  return false;
}

function show(happenings: readonly IHappening[], tabs: Tabs, showPanel: () => void, trans: TranslationBundle): void {
  const jobs = happenings.flatMap(happening => happening.jobs);
  const single = jobs.length === 1 ? jobs[0]! : null;
  const hasFailed = happenings.some(happening => happening.kind === 'failed');
  const message = single !== null ? sentence(happenings[0]!, single, trans) : counts(happenings, trans);
  const action: Notification.IAction =
    single !== null
      ? { label: trans.__('Open'), callback: () => tabs.openJob(single.id) }
      : { label: trans.__('Show jobs'), callback: showPanel };
  Notification.emit(message, hasFailed ? 'error' : happenings.every(each => each.kind === 'started') ? 'info' : 'success', {
    autoClose: hasFailed ? CLOSE_MS.bad : CLOSE_MS.good,
    actions: [action]
  });
}

function sentence({ kind }: IHappening, job: Job, trans: TranslationBundle): string {
  const life = duration((job.ended_at ?? 0) - (job.started_at ?? job.created_at), trans);
  switch (kind) {
    case 'started':
      return trans.__('%1 has started, after it waited %2.', job.name, duration((job.started_at ?? 0) - job.created_at, trans));
    case 'failed':
      return trans.__('%1 failed: %2', job.name, job.reason || trans.__('exit code %1', job.exit_code ?? '?'));
    case 'ended':
      return trans.__('%1 has ended well, after it ran %2.', job.name, life);
  }
}

function counts(happenings: readonly IHappening[], trans: TranslationBundle): string {
  const jobs = happenings.flatMap(happening => happening.jobs);
  const failed = jobs.filter(job => lookOf(job.phase) === 'failed').length;
  const ended = jobs.filter(job => lookOf(job.phase) === 'succeeded').length;
  const started = happenings.filter(happening => happening.kind === 'started').length;
  const parts = [
    failed > 0 && trans.__('%1 failed', failed),
    ended > 0 && trans.__('%1 ended well', ended),
    started > 0 && trans.__('%1 started', started)
  ];
  return trans.__('%1 of your jobs: %2', jobs.length, parts.filter(Boolean).join(', '));
}
