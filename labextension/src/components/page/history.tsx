/** What happened to a job, step by step; fetched when it is opened. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { messageOf } from '../../model/client';
import type { IModel, Job, JobEvent } from '../../model/tokens';
import { timeOfDay } from '../../text/time';

const MOST = 200;

interface IProps {
  job: Job;
  now: number;
  model: IModel;
  trans: TranslationBundle;
}

export function History({ job, now, model, trans }: IProps): React.JSX.Element {
  const [isOpen, setOpen] = React.useState(false);
  const [events, setEvents] = React.useState<readonly JobEvent[]>([]);
  const [problem, setProblem] = React.useState('');
  React.useEffect(() => {
    if (isOpen) {
      model.events(job.id).then(setEvents, (error: unknown) => setProblem(messageOf(error)));
    }
  }, [model, isOpen, job.id, job.phase, job.attempts.length]);
  const told = events.filter(event => event.text !== '');
  return (
    <details className="tl-Part tl-History" onToggle={event => setOpen(event.currentTarget.open)}>
      <summary>{trans.__('History')}</summary>
      {problem && <p role="status">{problem}</p>}
      {told.length > MOST && <p className="tl-Part-more">{trans.__('The newest %1 of %2 steps.', MOST, told.length)}</p>}
      <ol>
        {told.slice(-MOST).map(event => (
          <li key={event.seq}>
            <time>{timeOfDay(event.at, now)}</time> {event.text}
          </li>
        ))}
      </ol>
    </details>
  );
}
