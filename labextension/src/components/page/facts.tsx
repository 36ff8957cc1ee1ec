/** What a job is, when it ran, and where. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Job } from '../../model/tokens';
import { duration, lookName, lookOf, shapeOf } from '../../text/format';
import { timeOfDay } from '../../text/time';
import type { IActions } from '../actions';
import { Pairs } from './section';

interface IProps {
  job: Job;
  now: number;
  actions: IActions;
  trans: TranslationBundle;
}

export function Facts({ job, now, actions, trans }: IProps): React.JSX.Element {
  const started = job.started_at;
  const time = (name: string, seconds: number | null): readonly [string, string] | null =>
    seconds === null ? null : [name, timeOfDay(seconds, now)];
  const link = (id: string): React.JSX.Element => (
    <button type="button" className="tl-Link" onClick={() => actions.openJob(id)} title={id}>
      {shortId(id)}
    </button>
  );
  const place = placeText(job);
  const from = [job.labels['notebook'], job.labels['var']].filter(Boolean).join(' · ');
  return (
    <Pairs
      pairs={[
        [trans.__('State'), stateText(job, trans)],
        time(trans.__('Submitted'), job.created_at),
        time(trans.__('Started'), started),
        time(trans.__('Ended'), job.ended_at),
        [trans.__('Waited'), duration((started ?? job.ended_at ?? now) - job.created_at, trans)],
        started === null ? null : [trans.__('Ran'), duration((job.ended_at ?? now) - started, trans)],
        [trans.__('Owner'), <bdi key="owner">{job.owner}</bdi>],
        job.run_as === null ? null : [trans.__('Runs as'), <bdi key="runs-as">{job.run_as}</bdi>],
        [trans.__('Queue'), job.priority === 0 ? job.queue : trans.__('%1, priority %2', job.queue, job.priority)],
        [trans.__('Asks for'), askedText(job, trans)],
        place === '' ? null : [trans.__('Where'), place],
        job.timeout_s === null ? null : [trans.__('Time limit'), duration(job.timeout_s, trans)],
        from === '' ? null : [trans.__('From'), <bdi key="from">{from}</bdi>],
        job.after.length === 0 ? null : [trans.__('After'), job.after.map(id => <span key={id}>{link(id)} </span>)],
        job.retry_of === null ? null : [trans.__('Runs again'), link(job.retry_of)],
        [trans.__('Id'), <code key="id">{job.id}</code>, 'tl-mod-wide']
      ]}
    />
  );
}

/** Enough of an id to tell jobs apart: ids made near each other begin alike. */
function shortId(id: string): string {
  return id.length > 10 ? `…${id.slice(-8)}` : id;
}

function stateText(job: Job, trans: TranslationBundle): string {
  const parts = [lookName(lookOf(job.phase), trans)];
  if (job.reason && job.wait === null) {
    parts.push(job.reason);
  }
  if (job.exit_code !== null && job.exit_code !== 0 && !job.reason) {
    parts.push(trans.__('exit code %1', job.exit_code));
  }
  return parts.join(', ');
}

function askedText(job: Job, trans: TranslationBundle): string {
  const memory = [...new Set(job.pods.map(pod => pod.memory))].join(', ');
  return [shapeOf(job, trans), memory].filter(Boolean).join(' · ');
}

function placeText(job: Job): string {
  const attempt = job.attempts[job.attempts.length - 1];
  if (attempt === undefined) {
    return job.cluster ?? '';
  }
  const nodes = [...new Set(attempt.pods.map(pod => pod.node).filter(Boolean))];
  const shown = nodes.length > 6 ? [...nodes.slice(0, 6), '…'] : nodes;
  return `${attempt.cluster}: ${shown.join(', ')}`;
}
