/** Live jobs as a section of Lab's Running panel, beside kernels and terminals. */

import type { IRunningSessionManagers, IRunningSessions } from '@jupyterlab/running';
import type { TranslationBundle } from '@jupyterlab/translation';
import { type IDisposable, ObservableDisposableSet } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import type { IActions } from './components/actions';
import { tuttiIcon } from './icons';
import type { IModel, Job, Part } from './model/tokens';
import { lookName, lookOf } from './text/format';

export function addToRunning(
  managers: IRunningSessionManagers,
  model: IModel,
  actions: IActions,
  trans: TranslationBundle
): IDisposable {
  const owner = {};
  const changed = new Signal<object, void>(owner);
  const slot = (_: IModel, part: Part): void => {
    if (part === 'jobs') {
      changed.emit();
    }
  };
  model.changed.connect(slot);
  const live = (): Job[] => model.jobs.filter(job => !job.is_ended);
  const item = (job: Job): IRunningSessions.IRunningItem => ({
    icon: () => tuttiIcon,
    label: () => job.name,
    labelTitle: () => `${job.name}\n${job.id}`,
    detail: () => lookName(lookOf(job.phase), trans),
    open: () => actions.openJob(job.id),
    shutdown: () => void actions.cancelJob(job.id)
  });
  const added = managers.add({
    name: trans.__('tuttilab jobs'),
    supportsMultipleViews: false,
    running: () => live().map(item),
    // Lab has asked for confirmation before it calls this.
    shutdownAll: () => void Promise.all(live().map(job => model.cancelJob(job.id).catch(() => undefined))),
    refreshRunning: () => void model.refresh(),
    runningChanged: changed,
    shutdownLabel: trans.__('Cancel'),
    shutdownAllLabel: trans.__('Cancel all'),
    shutdownAllConfirmationText: trans.__('Cancel all your jobs that wait or run? What they have not saved is lost.')
  });
  const set = new ObservableDisposableSet();
  set.add(added);
  set.disposed.connect(() => {
    model.changed.disconnect(slot);
    Signal.clearData(owner);
  });
  return set;
}
