/** Which jobs are chosen for one action on all of them. No requests, and nothing that is drawn. */

import type { Job } from '../../model/tokens';
import type { Row } from './rows';

export function idsOf(row: Row): string[] {
  return row.kind === 'job' ? [row.job.id] : row.group.jobs.map(job => job.id);
}

/** Whether all, some or none of the row's jobs are chosen. */
export function chosenOf(row: Row, chosen: ReadonlySet<string>): 'all' | 'some' | 'none' {
  const ids = idsOf(row);
  const count = ids.filter(id => chosen.has(id)).length;
  return count === 0 ? 'none' : count === ids.length ? 'all' : 'some';
}

export function toggled(row: Row, chosen: ReadonlySet<string>): Set<string> {
  const next = new Set(chosen);
  const isOn = chosenOf(row, chosen) !== 'all';
  idsOf(row).forEach(id => (isOn ? next.add(id) : next.delete(id)));
  return next;
}

/** With all rows between two, both included. */
export function extended(rows: readonly Row[], from: number, to: number, chosen: ReadonlySet<string>): Set<string> {
  const next = new Set(chosen);
  rows.slice(Math.min(from, to), Math.max(from, to) + 1).forEach(row => idsOf(row).forEach(id => next.add(id)));
  return next;
}

/** What can be done with the chosen jobs. */
export function sorted(jobs: readonly Job[], chosen: ReadonlySet<string>): { live: Job[]; ended: Job[] } {
  const all = jobs.filter(job => chosen.has(job.id));
  return { live: all.filter(job => !job.is_ended), ended: all.filter(job => job.is_ended) };
}
