/** What happened to jobs, from what was known of them before: which of it a person who looked away wants to be told. No requests. */

import type { Job } from '../model/tokens';
import { lookOf } from './format';

export type Kind = 'started' | 'ended' | 'failed';

export interface IHappening {
  kind: Kind;
  /** One job, or the elements of a sweep that have ended. */
  jobs: readonly Job[];
}

/** A start is told after a wait of so many seconds, a good end after a life of so many: else nobody has looked away yet. */
export const LONG_WAIT_S = 10;
export const LONG_LIFE_S = 5;

const SWEEP = 'sweep';
/** Spark sessions and notebook servers start and end with the cells that use them. */
const KINDS = ['batch', 'distributed'];
const MOST_KNOWN = 20_000;

interface IKnown {
  isRunning: boolean;
  isEnded: boolean;
}

export class Happenings {
  /** `begun`: jobs that had ended before this time, in seconds since the epoch, are no news. */
  constructor(private readonly _begun: number) {}

  /** Ids of jobs that were live when they were last seen, those seen longest ago first. */
  get live(): readonly string[] {
    return [...this._live];
  }

  /** There is no such job any more. */
  forget(id: string): void {
    this._known.delete(id);
    this._live.delete(id);
    this._sweeps.forEach(sweep => sweep.live.delete(id));
  }

  /** Takes jobs as they are now; what happened since they were taken before. */
  take(jobs: readonly Job[]): IHappening[] {
    return jobs.filter(job => KINDS.includes(job.kind)).flatMap(job => this._takeOne(job));
  }

  private _takeOne(job: Job): IHappening[] {
    const before = this._known.get(job.id);
    const look = lookOf(job.phase);
    const isRunning = look === 'running';
    this._remember(job, { isRunning: isRunning || (before?.isRunning ?? false), isEnded: job.is_ended });
    const isNews = before !== undefined || job.created_at >= this._begun;
    const sweep = job.labels[SWEEP];
    if (sweep !== undefined) {
      return this._takeElement(sweep, job, isNews && !(before?.isEnded ?? false));
    }
    if (!isNews || before?.isEnded) {
      return [];
    }
    if (job.is_ended) {
      const life = (job.ended_at ?? 0) - job.created_at;
      return look === 'failed' ? [{ kind: 'failed', jobs: [job] }] : look === 'succeeded' && life >= LONG_LIFE_S ? [{ kind: 'ended', jobs: [job] }] : [];
    }
    const waited = (job.started_at ?? 0) - job.created_at;
    return isRunning && before !== undefined && !before.isRunning && waited >= LONG_WAIT_S ? [{ kind: 'started', jobs: [job] }] : [];
  }

  /** Elements of a sweep are told of once, when none of those seen is left. */
  private _takeElement(name: string, job: Job, isNews: boolean): IHappening[] {
    const sweep = this._sweeps.get(name) ?? { live: new Set<string>(), ended: new Map<string, Job>() };
    this._sweeps.set(name, sweep);
    if (!job.is_ended) {
      sweep.live.add(job.id);
      return [];
    }
    sweep.live.delete(job.id);
    if (isNews) {
      sweep.ended.set(job.id, job);
    }
    if (sweep.live.size > 0 || sweep.ended.size === 0) {
      return [];
    }
    const ended = [...sweep.ended.values()];
    this._sweeps.delete(name);
    const hasFailed = ended.some(each => lookOf(each.phase) === 'failed');
    const life = Math.max(...ended.map(each => (each.ended_at ?? 0) - each.created_at));
    return hasFailed || life >= LONG_LIFE_S ? [{ kind: hasFailed ? 'failed' : 'ended', jobs: ended }] : [];
  }

  private _remember(job: Job, known: IKnown): void {
    this._known.set(job.id, known);
    if (job.is_ended) {
      this._live.delete(job.id);
    } else {
      // Last, so that those seen longest ago come first.
      this._live.delete(job.id);
      this._live.add(job.id);
    }
    if (this._known.size > MOST_KNOWN) {
      const oldest = this._known.keys().next().value as string;
      this._known.delete(oldest);
      this._live.delete(oldest);
    }
  }

  private readonly _known = new Map<string, IKnown>();
  private readonly _live = new Set<string>();
  private readonly _sweeps = new Map<string, { live: Set<string>; ended: Map<string, Job> }>();
}
