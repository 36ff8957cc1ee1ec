/** A job's log in a tab of its own. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { closeIcon, refreshIcon, ToolbarButtonComponent } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IModel, Job } from '../../model/tokens';
import { duration, elapsed, lookName, lookOf } from '../../text/format';
import type { IActions } from '../actions';
import { BoardButton } from '../boardButton';
import { useJob, useNow } from '../hooks';
import { PhaseIcon } from '../phase';
import { LogView } from './logView';

interface IProps {
  id: string;
  follow: boolean;
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
  /** The job's name is known. */
  onName: (name: string) => void;
}

export function LogTab({ id, follow, model, actions, trans, onName }: IProps): React.JSX.Element {
  const { job, problem } = useJob(model, id);
  const name = job?.name;
  React.useEffect(() => {
    if (name !== undefined) {
      onName(name);
    }
  }, [name, onName]);
  return (
    <div className="tl-Log">
      <Head job={job} model={model} actions={actions} trans={trans} />
      {problem && (
        <div className="tl-Log-problem" role="status">
          {problem}
        </div>
      )}
      <LogView id={id} job={job} follow={follow} model={model} trans={trans} />
    </div>
  );
}

interface IHeadProps {
  job: Job | undefined;
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
}

function Head({ job, model, actions, trans }: IHeadProps): React.JSX.Element {
  const now = useNow(job !== undefined && !job.is_ended);
  return (
    <div className="tl-TabHead">
      {job && <PhaseIcon phase={job.phase} trans={trans} />}
      <bdi className="tl-TabHead-name">{job?.name ?? ''}</bdi>{' '}
      {job && (
        <span className="tl-TabHead-detail">
          {lookName(lookOf(job.phase), trans)} · {duration(elapsed(job, now), trans)}
          {(job.wait?.sentence ?? job.reason) && ` · ${job.wait?.sentence ?? job.reason}`}
        </span>
      )}
      <span className="tl-TabHead-space" />
      {job && <ToolbarButtonComponent label={trans.__('Job page')} onClick={() => actions.openJob(job.id)} />}
      {job && <BoardButton job={job} model={model} actions={actions} trans={trans} />}
      {job && !job.is_ended && (
        <ToolbarButtonComponent icon={closeIcon} label={trans.__('Cancel')} onClick={() => void actions.cancelJob(job.id)} />
      )}
      {job?.is_ended && (
        <ToolbarButtonComponent icon={refreshIcon} label={trans.__('Run again')} onClick={() => void actions.retryJob(job.id)} />
      )}
    </div>
  );
}
