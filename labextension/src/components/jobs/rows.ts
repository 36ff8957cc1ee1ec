/** From jobs to the rows of the list: chosen by state, grouped, in order. No requests, and nothing that is drawn. */

import type { Job, Run } from '../../model/tokens';
import { elapsed, lookOf } from '../../text/format';

/** The states that a chip chooses: several looks are one. */
export const STATES = ['running', 'waiting', 'succeeded', 'failed', 'cancelled'] as const;
export type State = (typeof STATES)[number];
export const ENDED: ReadonlySet<State> = new Set<State>(['succeeded', 'failed', 'cancelled']);

export const ORDERS = ['state', 'newest', 'longest', 'name'] as const;
export type Order = (typeof ORDERS)[number];

export type GroupKind = 'map' | 'run' | 'notebook';

/** Jobs that belong together: of one `--map`, one DAG run, one notebook. `id`: the run's id, or what the jobs share. */
export interface IGroup {
  key: string;
  kind: GroupKind;
  id: string;
  name: string;
  jobs: readonly Job[];
}

export type Row =
  | { kind: 'group'; key: string; group: IGroup; isOpen: boolean }
  | { kind: 'job'; key: string; job: Job; group: IGroup | null };

export interface IView {
  /** Empty: all. */
  states: ReadonlySet<State>;
  order: Order;
  isGrouped: boolean;
  /** Groups that were opened or closed by hand, by key. */
  opened: ReadonlyMap<string, boolean>;
}

export function stateOf(phase: string): State {
  const look = lookOf(phase);
  switch (look) {
    case 'starting':
    case 'running':
    case 'stopping':
      return 'running';
    case 'skipped':
      return 'cancelled';
    default:
      return look;
  }
}

export function countStates(jobs: readonly Job[]): Record<State, number> {
  const counts = { running: 0, waiting: 0, succeeded: 0, failed: 0, cancelled: 0 };
  for (const job of jobs) {
    counts[stateOf(job.phase)] += 1;
  }
  return counts;
}

/** `runs`: those that are known, for their names. */
export function rowsOf(jobs: readonly Job[], runs: readonly Run[], view: IView): Row[] {
  const chosen = view.states.size === 0 ? jobs : jobs.filter(job => view.states.has(stateOf(job.phase)));
  const compare = ORDERINGS[view.order];
  const items: { sample: Job; rows: Row[] }[] = [];
  for (const part of view.isGrouped ? grouped(chosen, runs) : chosen) {
    if ('jobs' in part) {
      const members = [...part.jobs].sort(compare);
      const group = { ...part, jobs: members };
      // A map or a run is one thing; a notebook is a heading above its jobs.
      const isOpen = view.opened.get(group.key) ?? group.kind === 'notebook';
      const inside: Row[] = isOpen ? members.map(job => ({ kind: 'job', key: job.id, job, group })) : [];
      // A group stands where the first of its jobs would.
      items.push({ sample: members[0]!, rows: [{ kind: 'group', key: group.key, group, isOpen }, ...inside] });
    } else {
      items.push({ sample: part, rows: [{ kind: 'job', key: part.id, job: part, group: null }] });
    }
  }
  return items.sort((a, b) => compare(a.sample, b.sample)).flatMap(item => item.rows);
}

/** Jobs of a group of one stay by themselves. */
function grouped(jobs: readonly Job[], runs: readonly Run[]): (Job | IGroup)[] {
  const members = new Map<string, Job[]>();
  for (const job of jobs) {
    const key = keyOf(job);
    if (key !== null) {
      const others = members.get(key);
      if (others === undefined) {
        members.set(key, [job]);
      } else {
        others.push(job);
      }
    }
  }
  const names = new Map(runs.map(run => [run.id, run.name]));
  const found: (Job | IGroup)[] = [];
  const seen = new Set<string>();
  for (const job of jobs) {
    const key = keyOf(job);
    const all = key === null ? undefined : members.get(key);
    if (key === null || all === undefined || all.length < 2) {
      found.push(job);
    } else if (!seen.has(key)) {
      seen.add(key);
      const [kind, id] = partsOf(key);
      found.push({ key, kind, id, name: nameOf(kind, id, all, names), jobs: all });
    }
  }
  return found;
}

function keyOf(job: Job): string | null {
  const { sweep, notebook } = job.labels;
  const run = job.labels['dag-run'];
  if (run) {
    return `run:${run}`;
  }
  if (sweep) {
    return `map:${sweep}`;
  }
  return notebook ? `notebook:${notebook}` : null;
}

function partsOf(key: string): [GroupKind, string] {
  const at = key.indexOf(':');
  return [key.slice(0, at) as GroupKind, key.slice(at + 1)];
}

function nameOf(kind: GroupKind, id: string, jobs: readonly Job[], runs: ReadonlyMap<string, string>): string {
  if (kind === 'run') {
    return runs.get(id) ?? jobs[0]!.name.split('.')[0]!;
  }
  if (kind === 'notebook') {
    return id.split('/').pop()!;
  }
  const name = jobs[0]!.name;
  const end = name.lastIndexOf('[');
  return end > 0 ? name.slice(0, end) : name;
}

const RANKS: Record<State, number> = { running: 0, waiting: 1, succeeded: 2, failed: 2, cancelled: 2 };

/** Jobs of one batch share their time and stay in the order in which the service lists them. */
const newest = (a: Job, b: Job): number => b.created_at - a.created_at;

const ORDERINGS: Record<Order, (a: Job, b: Job) => number> = {
  state: (a, b) => RANKS[stateOf(a.phase)] - RANKS[stateOf(b.phase)] || newest(a, b),
  newest,
  longest: (a, b) => {
    // All at the same moment, or the order would change while it is read.
    const now = Date.now() / 1000;
    return elapsed(b, now) - elapsed(a, now) || newest(a, b);
  },
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }) || newest(a, b)
};

/** A group's time: from its first submit to its last end, or to now while one is live. */
export function groupElapsed(group: IGroup, now: number): number {
  const since = Math.min(...group.jobs.map(job => job.created_at));
  const until = group.jobs.every(job => job.ended_at !== null) ? Math.max(...group.jobs.map(job => job.ended_at!)) : now;
  return until - since;
}
