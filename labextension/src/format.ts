/** Phases, amounts and times as people read them. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Job, Run, Use } from './tokens';

/** What a phase looks like: several phases of jobs, attempts and nodes share one. */
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

/** The second line of a job that does not wait: where it is and what it holds. */
export function place(job: Job, trans: TranslationBundle): string {
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

/** Parts of a whole in percent for the bar of one resource; `scale` is what the full bar stands for. */
export interface IBar {
  used: number;
  guaranteed: number;
  isOver: boolean;
  scale: number;
}

/** A queue without a maximum is drawn against what there is; without even that, against itself. */
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

/** A Kubernetes quantity as the API counts it (CPU in thousandths); 0 for what is none. */
export function amountOf(resource: string, text: string): number {
  const match = /^([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)$/.exec(text);
  const factor = match?.[2] ? FACTORS[match[2]] : 1;
  return match && factor !== undefined ? Number(match[1]) * factor * (resource === 'cpu' ? 1000 : 1) : 0;
}
