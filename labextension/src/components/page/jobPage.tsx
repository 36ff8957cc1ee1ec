/** All there is to know of one job, in a tab: what, when and where; why it waited; attempts; what it sent and kept; use; log. */

import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { closeIcon, copyIcon, deleteIcon, refreshIcon, ToolbarButtonComponent } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { Paint } from '../../editors/paint';
import type { IModel, Job } from '../../model/tokens';
import { duration, elapsed, lookName, lookOf } from '../../text/format';
import type { IActions } from '../actions';
import { BoardButton } from '../boardButton';
import { useIsShown, useJob, useNow } from '../hooks';
import { LogView } from '../log/logView';
import { PhaseIcon } from '../phase';
import { Attempts } from './attempts';
import { Facts } from './facts';
import { History } from './history';
import { CodeSection, Given, Kept, useDetails } from './sent';
import { ShownSection } from './shown';
import { UsageSection } from './usage';
import { Waiting } from './waiting';

interface IProps {
  id: string;
  follow: boolean;
  /** Colours of Python source. */
  paint: Paint | null;
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
  /** The job's name is known. */
  onName: (name: string) => void;
  /** Closes the tab: the job was deleted here. */
  onDeleted: () => void;
}

export function JobPage(props: IProps): React.JSX.Element {
  const { id, model, trans, onName } = props;
  const { job, problem, isGone } = useJob(model, id);
  const name = job?.name;
  React.useEffect(() => {
    if (name !== undefined) {
      onName(name);
    }
  }, [name, onName]);
  if (job === undefined) {
    return (
      <div className="tl-Empty" role="status">
        {problem || trans.__('Loading…')}
      </div>
    );
  }
  return <Page {...props} job={job} problem={problem} isGone={isGone} />;
}

interface IPageProps extends IProps {
  job: Job;
  problem: string;
  isGone: boolean;
}

function Page(props: IPageProps): React.JSX.Element {
  const { id, follow, model, actions, trans, job, problem, isGone } = props;
  const root = React.useRef<HTMLDivElement>(null);
  const isShown = useIsShown(root);
  const now = useNow(isShown && !job.is_ended);
  const { details, problem: detailsProblem } = useDetails(model, job);
  return (
    <div ref={root} className="tl-Page">
      <Head {...props} now={now} />
      {(problem || job.unreachable_since !== null) && (
        <div className="tl-Log-problem" role="status">
          {isGone ? trans.__('The job was deleted; this is what was known of it.') : problem || trans.__('the cluster does not answer')}
        </div>
      )}
      <div className="tl-Page-columns">
        <div className="tl-Page-about" tabIndex={0} role="region" aria-label={trans.__('About %1', job.name)}>
          <Waiting job={job} now={now} trans={trans} />
          <Facts job={job} now={now} actions={actions} trans={trans} />
          <CodeSection job={job} details={details} problem={detailsProblem} paint={props.paint} trans={trans} />
          <ShownSection job={job} details={details} isShown={isShown} model={model} trans={trans} />
          <UsageSection job={job} isShown={isShown} model={model} trans={trans} />
          <Attempts job={job} now={now} trans={trans} />
          {details !== null && <Given details={details} trans={trans} />}
          {details !== null && <Kept job={job} details={details} trans={trans} />}
          <History job={job} now={now} model={model} trans={trans} />
        </div>
        <section className="tl-Page-log" aria-label={trans.__('Log')}>
          <LogView id={id} job={job} follow={follow} model={model} trans={trans} />
        </section>
      </div>
    </div>
  );
}

function Head(props: IPageProps & { now: number }): React.JSX.Element {
  const { job, now, isGone, model, actions, trans, onDeleted } = props;
  const look = lookOf(job.phase);
  const remove = async (): Promise<void> => {
    if (await actions.deleteJob(job.id)) {
      onDeleted();
    }
  };
  return (
    <div className="tl-TabHead tl-Page-head">
      <PhaseIcon phase={job.phase} trans={trans} />
      <h1 className="tl-TabHead-name">
        <bdi>{job.name}</bdi>
      </h1>{' '}
      <span className={`tl-TabHead-detail tl-Page-state tl-mod-${look}`} role="status">
        {lookName(look, trans)}
      </span>{' '}
      <span className="tl-TabHead-detail">{duration(elapsed(job, now), trans)}</span>
      <span className="tl-TabHead-space" />
      {!isGone && <BoardButton job={job} model={model} actions={actions} trans={trans} />}
      {!isGone && !job.is_ended && (
        <ToolbarButtonComponent icon={closeIcon} label={trans.__('Cancel')} onClick={() => void actions.cancelJob(job.id)} />
      )}
      {!isGone && job.is_ended && (
        <>
          <ToolbarButtonComponent icon={refreshIcon} label={trans.__('Run again')} onClick={() => void actions.retryJob(job.id)} />
          <ToolbarButtonComponent icon={deleteIcon} label={trans.__('Delete')} onClick={() => void remove()} />
        </>
      )}
      <ToolbarButtonComponent icon={copyIcon} label={trans.__('Copy id')} onClick={() => Clipboard.copyToSystem(job.id)} />
    </div>
  );
}
