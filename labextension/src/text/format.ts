/** Formats phases, amounts and times for people. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Job, Run, Use } from '../model/tokens';
import { startText } from './time';

/** How a phase is drawn: several phases of jobs, attempts and nodes share one look. */
export type Look = 'waiting' | 'starting' | 'running' | 'stopping' | 'succeeded' | 'failed' | 'cancelled' | 'skipped';

const LOOKS = new Map<string, Look>(
  Object.entries({
  Queued: 'waiting',
  Pending: 'waiting',
  Submitted: 'waiting',
  Active: 'starting',
  Admitted: 'starting',
  Launching: 'starting',
  Running: 'running',
  Stopping: 'stopping',
  Succeeded: 'succeeded',
  Failed: 'failed',
  Lost: 'failed',
  Preempted: 'waiting',
  Cancelled: 'cancelled',
  Skipped: 'skipped'
} as const)
);

export function lookOf(phase: string): Look {
  return LOOKS.get(phase) ?? 'waiting';
}

/** The word for a phase; the table is in `scheduler/domain/words.py` and in docs/glossary.md, and a test compares them. */
export function phaseName(phase: string, trans: TranslationBundle): string {
  switch (phase) {
    case 'Lost':
      return trans.__('Lost');
    case 'Preempted':
      return trans.__('Preempted');
    default:
      return LOOKS.has(phase) ? lookName(lookOf(phase), trans) : phase;
  }
}

/** The word for a phase of a pod, as in `POD_PHASES` there. */
export function podPhaseName(phase: string, trans: TranslationBundle): string {
  switch (phase) {
    case 'Pending':
      return trans.__('Starting');
    case 'Ready':
      return trans.__('Ready');
    case 'Running':
      return trans.__('Running');
    case 'Ended':
      return trans.__('Ended');
    default:
      return phase;
  }
}

export function lookName(look: Look, trans: TranslationBundle): string {
  switch (look) {
    case 'waiting':
      return trans.__('Waiting');
    case 'starting':
      return trans.__('Starting');
    case 'running':
      return trans.__('Running');
    case 'stopping':
      return trans.__('Stopping');
    case 'succeeded':
      return trans.__('Succeeded');
    case 'failed':
      return trans.__('Failed');
    case 'cancelled':
      return trans.__('Cancelled');
    case 'skipped':
      return trans.__('Skipped');
  }
}

/** `42 s`, `3:07`, `2:15:09`, `3 d 4 h`. */
export function duration(seconds: number, trans: TranslationBundle): string {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 60) {
    return trans.__('%1 s', whole);
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  }
  if (whole < 86_400) {
    return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  }
  return trans.__('%1 d %2 h', Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24);
}

/** `14:03`, with the date when it was on another day: `28 Nov 14:03`, as the page's language writes it. */
export function timeOfDay(at: number, now: number): string {
  const when = new Date(at * 1000);
  const language = globalThis.document?.documentElement.lang || undefined;
  const time = when.toLocaleTimeString(language, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  if (when.toDateString() === new Date(now * 1000).toDateString()) {
    return time;
  }
  const isThisYear = when.getFullYear() === new Date(now * 1000).getFullYear();
  const date = when.toLocaleDateString(language, { day: 'numeric', month: 'short', ...(isThisYear ? {} : { year: 'numeric' }) });
  return `${date} ${time}`;
}

/** How long a job has run, or has waited when it has not started. */
export function elapsed(job: Job, now: number): number {
  return (job.ended_at ?? now) - (job.started_at ?? job.created_at);
}

export function runElapsed(run: Run, now: number): number {
  return (run.ended_at ?? now) - run.created_at;
}

/** `cpu` to `CPU`, `nvidia.com/gpu` to `GPU`. */
export function resourceName(resource: string, trans: TranslationBundle): string {
  if (resource === 'cpu') {
    return trans.__('CPU');
  }
  if (resource === 'memory') {
    return trans.__('memory');
  }
  if (resource === 'nvidia.com/gpu') {
    return trans.__('GPU');
  }
  return resource;
}

/** Where a job runs and how much it holds: the second line of a job that does not wait. */
export function placementText(job: Job, trans: TranslationBundle): string {
  const attempt = job.attempts[job.attempts.length - 1];
  const nodes = [...new Set((attempt?.pods ?? []).map(pod => pod.node).filter(Boolean))];
  const parts: string[] = [];
  if (nodes.length > 0) {
    const shown = nodes.length > 3 ? [...nodes.slice(0, 3), '…'] : nodes;
    parts.push(attempt?.cluster ? `${attempt.cluster}: ${shown.join(', ')}` : shown.join(', '));
  }
  const shape = shapeOf(job, trans);
  if (shape) {
    parts.push(shape);
  }
  return parts.join(' · ');
}

/** Why the job waits or how it ended, else where it runs. `isShort`: nothing of its place and queue. */
export function detailOf(job: Job, now: number, trans: TranslationBundle, { isShort = false } = {}): string {
  if (job.wait !== null) {
    const place = job.wait.place > 0 ? trans.__('place %1', job.wait.place) : '';
    return [startText(job.wait, now, trans), place, job.wait.sentence].filter(Boolean).join(' · ');
  }
  if (job.unreachable_since !== null) {
    return trans.__('the cluster does not answer');
  }
  const parts = isShort ? [] : [placementText(job, trans), job.queue];
  if (job.is_ended && job.reason) {
    parts.unshift(job.reason);
  }
  return parts.filter(Boolean).join(' · ');
}

/** `2 × (4 CPU, 1 GPU)`. */
export function shapeOf(job: Job, trans: TranslationBundle): string {
  return job.pods
    .map(pod => {
      const amounts = [trans.__('%1 CPU', pod.cpus)];
      if (pod.gpus > 0) {
        amounts.push(trans.__('%1 GPU', pod.gpus));
      }
      const each = amounts.join(', ');
      return pod.count > 1 ? `${pod.count} × (${each})` : each;
    })
    .join(' + ');
}

/** The bar of one resource in percent; `scale` is the amount that a full bar stands for. */
export interface IBar {
  used: number;
  guaranteed: number;
  isOver: boolean;
  scale: number;
}

/** Without a maximum the scale is the capacity; when that is unknown, what is used or guaranteed. */
export function barOf(use: Use, capacity: number): IBar {
  const scale = use.max ?? Math.max(capacity, use.guaranteed, use.used, 1);
  const percent = (amount: number): number => (scale > 0 ? Math.min(100, (amount / scale) * 100) : amount > 0 ? 100 : 0);
  return {
    used: percent(use.used),
    guaranteed: percent(use.guaranteed),
    isOver: use.guaranteed > 0 && use.used > use.guaranteed,
    scale
  };
}

const FACTORS: Record<string, number> = {
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40
};

/** A Kubernetes quantity as the API counts it (CPU in thousandths); 0 for text that is none. */
export function amountOf(resource: string, text: string): number {
  const match = /^([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)$/.exec(text);
  const factor = match?.[2] ? FACTORS[match[2]] : 1;
  return match && factor !== undefined ? Number(match[1]) * factor * (resource === 'cpu' ? 1000 : 1) : 0;
}
