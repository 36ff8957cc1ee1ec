import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import { amountOf, barOf, duration, elapsed, lookOf } from '../src/format';
import type { Use } from '../src/tokens';
import { job, waiting } from './builders';

const trans = nullTranslator.load('tuttilab');
const use = (used: number, guaranteed: number, max: number | null): Use => ({
  resource: 'nvidia.com/gpu',
  used,
  guaranteed,
  max,
  used_text: '',
  guaranteed_text: '',
  max_text: ''
});

describe('times', () => {
  it.each([
    [0, '0 s'],
    [59.9, '59 s'],
    [187, '3:07'],
    [8109, '2:15:09'],
    [273_600, '3 d 4 h'],
    [-5, '0 s']
  ])('%d s is %s', (seconds, text) => {
    expect(duration(seconds, trans)).toBe(text);
  });

  it('count from the start, or from the submit while it waits', () => {
    expect(elapsed(job('a', { created_at: 10, started_at: 20 }), 50)).toBe(30);
    expect(elapsed(waiting('a', 1, { created_at: 10 }), 50)).toBe(40);
    expect(elapsed(job('a', { started_at: 20, ended_at: 25 }), 50)).toBe(5);
  });
});

describe('quota', () => {
  it('is drawn against the maximum', () => {
    expect(barOf(use(3, 2, 4), 100)).toEqual({ used: 75, guaranteed: 50, isOver: true, scale: 4 });
  });

  it('without a maximum is drawn against what there is', () => {
    expect(barOf(use(3, 0, null), 12)).toEqual({ used: 25, guaranteed: 0, isOver: false, scale: 12 });
  });

  it('of nothing is full when something is used', () => {
    expect(barOf(use(1, 0, 0), 0).used).toBe(100);
  });

  it.each([
    ['cpu', '500m', 500],
    ['cpu', '8', 8000],
    ['memory', '16Gi', 16 * 2 ** 30],
    ['memory', '1.5Gi', 1.5 * 2 ** 30],
    ['nvidia.com/gpu', '4', 4],
    ['cpu', 'many', 0]
  ])('%s %s is %d', (resource, text, amount) => {
    expect(amountOf(resource, text)).toBe(amount);
  });
});

describe('phases', () => {
  it('that nobody knows yet wait', () => {
    expect(lookOf('Later')).toBe('waiting');
    expect(lookOf('constructor')).toBe('waiting');
  });
});
