/** The tries to run a job, newest first, each with its pods. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Attempt, Job, Pod } from '../../model/tokens';
import { duration, lookName, lookOf } from '../../text/format';
import { timeOfDay } from '../../text/time';
import { PhaseIcon } from '../phase';
import { Section } from './section';

const FIRST_PODS = 20;

interface IProps {
  job: Job;
  now: number;
  trans: TranslationBundle;
}

export function Attempts({ job, now, trans }: IProps): React.JSX.Element | null {
  if (job.attempts.length === 0) {
    return null;
  }
  const newest = [...job.attempts].reverse();
  return (
    <Section title={trans.__('Attempts')} note={String(job.attempts.length)}>
      {newest.map((attempt, index) => (
        <details key={attempt.number} className="tl-Attempt" open={index === 0}>
          <summary>
            <PhaseIcon phase={attempt.phase} trans={trans} />
            <span>{trans.__('attempt %1', attempt.number)}</span> <span>{lookName(lookOf(attempt.phase), trans)}</span>{' '}
            <span>{attemptText(attempt, now, trans)}</span>
          </summary>
          <Pods attempt={attempt} now={now} trans={trans} />
        </details>
      ))}
    </Section>
  );
}

function attemptText(attempt: Attempt, now: number, trans: TranslationBundle): string {
  const parts = [timeOfDay(attempt.started_at ?? attempt.admitted_at, now)];
  if (attempt.started_at !== null) {
    parts.push(duration((attempt.ended_at ?? now) - attempt.started_at, trans));
  }
  if (attempt.exit_code !== null && !attempt.reason) {
    parts.push(trans.__('exit code %1', attempt.exit_code));
  }
  if (attempt.asks_for) {
    parts.push(trans.__('asks for %1 workers', attempt.asks_for));
  }
  return [...parts, attempt.reason].filter(Boolean).join(' · ');
}

function Pods({ attempt, now, trans }: { attempt: Attempt; now: number; trans: TranslationBundle }): React.JSX.Element {
  const [isWhole, setWhole] = React.useState(false);
  const pods = [...attempt.pods, ...attempt.left].sort((a, b) => severity(a) - severity(b) || a.rank - b.rank);
  const shown = isWhole ? pods : pods.slice(0, FIRST_PODS);
  return (
    <div className="tl-Table-scroll">
      <table className="tl-Table">
        <thead>
          <tr>
            <th scope="col">{trans.__('Pod')}</th>
            <th scope="col">{trans.__('Node')}</th>
            <th scope="col">{trans.__('State')}</th>
            <th scope="col">{trans.__('Exit code')}</th>
            <th scope="col">{trans.__('Reason')}</th>
            <th scope="col">{trans.__('Started')}</th>
            <th scope="col">{trans.__('Ran')}</th>
          </tr>
        </thead>
        <tbody>
          {shown.map(pod => (
            <tr key={pod.name} title={pod.name}>
              <th scope="row">{pod.rank < 0 ? pod.role : trans.__('%1 %2', pod.role, pod.rank)}</th>
              <td>{pod.node}</td>
              <td>{podState(pod, trans)}</td>
              <td className="tl-mod-number">{pod.exit_code ?? ''}</td>
              <td>{[pod.reason === 'Completed' ? '' : pod.reason, pod.given_back].filter(Boolean).join(', ')}</td>
              <td className="tl-mod-number">{pod.started_at === null ? '' : timeOfDay(pod.started_at, now)}</td>
              <td className="tl-mod-number">
                {pod.started_at === null ? '' : duration((pod.ended_at ?? now) - pod.started_at, trans)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {shown.length < pods.length && (
        <button type="button" className="tl-Link" onClick={() => setWhole(true)}>
          {trans.__('Show all %1 pods', pods.length)}
        </button>
      )}
    </div>
  );
}

/** Those that failed come first: in a large gang they are what one looks for. */
function severity(pod: Pod): number {
  return pod.phase === 'Ended' && pod.exit_code !== 0 ? 0 : 1;
}

function podState(pod: Pod, trans: TranslationBundle): string {
  switch (pod.phase) {
    case 'Pending':
      return trans.__('Starting');
    case 'Ready':
      return trans.__('Ready');
    case 'Running':
      return trans.__('Running');
    default:
      return pod.exit_code === null ? trans.__('Lost') : trans.__('Ended');
  }
}
