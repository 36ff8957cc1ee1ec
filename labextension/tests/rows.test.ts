import { describe, expect, it } from 'vitest';

import { chosenOf, extended, sorted, toggled } from '../src/components/jobs/choice';
import { countStates, type IView, type Row, rowsOf } from '../src/components/jobs/rows';
import type { Job } from '../src/model/tokens';
import { job, run, waiting } from './builders';

const ALL: IView = { states: new Set(), order: 'state', isGrouped: true, opened: new Map() };
const text = (row: Row): string => (row.kind === 'job' ? row.job.id : `${row.group.kind} ${row.group.name} ${row.group.jobs.length}`);
const texts = (jobs: readonly Job[], view: Partial<IView> = {}): string[] => rowsOf(jobs, [], { ...ALL, ...view }).map(text);
const ended = (id: string, phase: string, more: Partial<Job> = {}): Job => job(id, { phase, is_ended: true, ended_at: 200, ...more });
const element = (index: number, more: Partial<Job> = {}): Job =>
  job(`e${index}`, { name: `sweep-ab[${index}]`, labels: { sweep: 'ab', element: String(index), notebook: 'a/x.ipynb' }, ...more });

describe('the order', () => {
  const jobs = [ended('new', 'Succeeded', { created_at: 400, name: 'b' }), waiting('w', 1, { created_at: 300, name: 'c' }), job('old', { created_at: 1, name: 'a' })];

  it('is running, waiting, ended', () => {
    expect(texts(jobs)).toEqual(['old', 'w', 'new']);
  });

  it.each([
    ['newest', ['new', 'w', 'old']],
    ['name', ['old', 'new', 'w']]
  ] as const)('is %s on request', (order, expected) => {
    expect(texts(jobs, { order })).toEqual(expected);
  });
});

describe('chips', () => {
  it('count and choose states', () => {
    const jobs = [job('a'), job('b', { phase: 'Launching' }), waiting('c', 1), ended('d', 'Lost'), ended('e', 'Cancelled')];
    expect(countStates(jobs)).toEqual({ running: 2, waiting: 1, succeeded: 0, failed: 1, cancelled: 1 });
    expect(texts(jobs, { states: new Set(['failed', 'waiting']) })).toEqual(['c', 'd']);
  });
});

describe('a map', () => {
  it('is one row that opens to its jobs', () => {
    const jobs = [0, 1, 2].map(index => element(index));
    expect(texts(jobs)).toEqual(['map sweep-ab 3']);
    expect(texts(jobs, { opened: new Map([['map:ab', true]]) })).toEqual(['map sweep-ab 3', 'e0', 'e1', 'e2']);
    expect(texts(jobs, { isGrouped: false })).toEqual(['e0', 'e1', 'e2']);
  });

  it('stands where the first of its jobs would', () => {
    const jobs = [ended('done', 'Succeeded', { created_at: 900 }), element(0), element(1, { phase: 'Succeeded', is_ended: true })];
    expect(texts(jobs)).toEqual(['map sweep-ab 2', 'done']);
  });
});

describe('a DAG run and a notebook', () => {
  it('are one row each, the notebook with its jobs below it', () => {
    const node = (id: string): Job => job(id, { labels: { 'dag-run': 'run-1', 'dag-node': id } });
    const cell = (id: string): Job => job(id, { labels: { notebook: 'folder/day.ipynb' } });
    const rows = rowsOf([node('n1'), node('n2'), cell('c1'), cell('c2')], [run('run-1', ['n1'], { name: 'nightly' })], ALL);
    expect(rows.map(text)).toEqual(['run nightly 2', 'notebook day.ipynb 2', 'c1', 'c2']);
  });

  it('with one job are no group', () => {
    expect(texts([job('c1', { labels: { notebook: 'x.ipynb' } })])).toEqual(['c1']);
  });
});

describe('a choice', () => {
  const jobs = [job('a'), ended('b', 'Failed'), element(0), element(1)];
  const rows = rowsOf(jobs, [], ALL);
  const at = (wanted: string): number => rows.findIndex(row => text(row) === wanted);

  it('of a group is all of its jobs', () => {
    const chosen = toggled(rows[at('map sweep-ab 2')]!, new Set());
    expect([...chosen]).toEqual(['e0', 'e1']);
    expect(chosenOf(rows[at('map sweep-ab 2')]!, new Set(['e0']))).toBe('some');
    expect(toggled(rows[at('map sweep-ab 2')]!, chosen).size).toBe(0);
  });

  it('goes from one row to another', () => {
    expect([...extended(rows, rows.length - 1, 0, new Set())].sort()).toEqual(['a', 'b', 'e0', 'e1']);
  });

  it('is live and ended jobs', () => {
    const { live, ended: over } = sorted(jobs, new Set(['a', 'b']));
    expect([live.map(each => each.id), over.map(each => each.id)]).toEqual([['a'], ['b']]);
  });
});
