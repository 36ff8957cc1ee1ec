import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import type { Use } from '../src/model/tokens';
import { amountOf, barOf, duration, elapsed, lookOf, phaseName, podPhaseName } from '../src/text/format';
import { startText } from '../src/text/time';
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

describe('the told start', () => {
  const NOON = new Date(2026, 10, 29, 12, 0, 0).getTime() / 1000;
  const told = (earliest: number | null, latest: number | null): string =>
    startText({ ...waiting('a', 1).wait!, earliest, latest }, NOON, trans);

  it.each([
    [300, 1200, 'starts between 12:05 and 12:20'],
    [-60, 1190, 'starts by 12:20'],
    [10, 1200, 'starts by 12:20'],
    [5, 40, 'starts within a minute'],
    [7200, 86_400, 'starts between 14:00 and 2026-11-30 12:00'],
    [-600, -60, '']
  ])('from %d s to %d s is "%s"', (earliest, latest, text) => {
    expect(told(NOON + earliest, NOON + latest)).toBe(text);
  });

  it('is left out where none is told', () => {
    expect(told(null, null)).toBe('');
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

/** A map of the Python surfaces, read from its source. */
function pythonWords(name: string): Map<string, string> {
  const source = readFileSync(fileURLToPath(new URL('../../scheduler/domain/words.py', import.meta.url)), 'utf-8');
  const constants = new Map([...source.matchAll(/^([A-Z]+): Final = "(\w+)"$/gm)].map(found => [found[1]!, found[2]!]));
  const body = new RegExp(`^${name}: [^{]*\\{([^}]*)\\}`, 'm').exec(source)?.[1] ?? '';
  return new Map([...body.matchAll(/"(\w+)": (?:"(\w+)"|([A-Z]+))/g)].map(found => [found[1]!, found[2] ?? constants.get(found[3]!)!]));
}

describe('phases', () => {
  it('have the same word as in the cell and at a prompt', () => {
    const words = pythonWords('PHASES');
    expect(words.size).toBe(14);
    for (const [phase, word] of words) {
      expect(`${phase}: ${phaseName(phase, trans)}`).toBe(`${phase}: ${word}`);
    }
    expect(phaseName('Later', trans)).toBe('Later');
  });

  it('of pods have the same word too', () => {
    const words = pythonWords('POD_PHASES');
    expect(words.size).toBe(4);
    for (const [phase, word] of words) {
      expect(`${phase}: ${podPhaseName(phase, trans)}`).toBe(`${phase}: ${word}`);
    }
  });

  it('that nobody knows yet wait', () => {
    expect(lookOf('Later')).toBe('waiting');
    expect(lookOf('constructor')).toBe('waiting');
  });
});
