import { beforeEach, describe, expect, it } from 'vitest';

import type { Job } from '../src/model/tokens';
import { Happenings, LONG_LIFE_S, LONG_WAIT_S } from '../src/text/happenings';
import { job, waiting } from './builders';

const BEGUN = 50;
let happenings: Happenings;

beforeEach(() => {
  happenings = new Happenings(BEGUN);
});

const take = (...jobs: Job[]): string[] => happenings.take(jobs).map(({ kind, jobs: of }) => `${of.map(each => each.id).join()} ${kind}`);
const ended = (id: string, phase: string, more: Partial<Job> = {}): Job =>
  job(id, { phase, is_ended: true, ended_at: 100 + LONG_LIFE_S, ...more });

describe('a job', () => {
  it('that starts after a long wait is told of once', () => {
    take(waiting('a', 1));
    const started = job('a', { started_at: 100 + LONG_WAIT_S });
    expect(take(started)).toEqual(['a started']);
    expect(take(started)).toEqual([]);
  });

  it('that starts at once is not', () => {
    take(waiting('a', 1));
    expect(take(job('a', { started_at: 101 }))).toEqual([]);
  });

  it('that ends well or fails is told of once', () => {
    take(job('a'), job('b'));
    expect(take(ended('a', 'Succeeded'), ended('b', 'Failed'))).toEqual(['a ended', 'b failed']);
    expect(take(ended('a', 'Succeeded'), ended('b', 'Failed'))).toEqual([]);
    expect(happenings.live).toEqual([]);
  });

  it('that somebody cancelled, or that lived for a moment, is not', () => {
    take(job('a'), job('b'));
    expect(take(ended('a', 'Cancelled'), ended('b', 'Succeeded', { ended_at: 101 }))).toEqual([]);
  });

  it('that had ended before is no news, one that came and failed between two looks is', () => {
    expect(take(ended('old', 'Failed', { created_at: BEGUN - 1 }), ended('new', 'Failed'))).toEqual(['new failed']);
  });

  it('that began before and ends now is news', () => {
    take(job('a', { created_at: 1 }));
    expect(take(ended('a', 'Succeeded', { created_at: 1 }))).toEqual(['a ended']);
  });

  it('of a Spark session or a notebook server is told of by others', () => {
    take(job('a', { kind: 'spark' }));
    expect(take(ended('a', 'Failed', { kind: 'spark' }))).toEqual([]);
  });
});

describe('a sweep', () => {
  const element = (index: number, more: Partial<Job> = {}): Job => job(`e${index}`, { labels: { sweep: 's' }, ...more });
  const done = (index: number, phase = 'Succeeded'): Job => ended(`e${index}`, phase, { labels: { sweep: 's' } });

  it('is told of once, when none of its elements is left', () => {
    take(element(0), element(1), element(2));
    expect(take(done(0), done(1, 'Failed'))).toEqual([]);
    expect(take(done(2))).toEqual(['e0,e1,e2 failed']);
  });

  it('does not wait for an element that was deleted', () => {
    take(element(0), element(1));
    happenings.forget('e1');
    expect(take(done(0))).toEqual(['e0 ended']);
  });
});

it('live jobs come in the order in which they were seen', () => {
  take(job('a'), job('b'));
  take(job('a'));
  expect(happenings.live).toEqual(['b', 'a']);
});
