import { describe, expect, it } from 'vitest';

import type { PodUsage } from '../src/model/tokens';
import { bytes, commandLine, cores } from '../src/text/amounts';
import { marked } from '../src/text/marks';
import { clock, timeOfDay } from '../src/text/time';
import { aligned, summaryOf, topOf } from '../src/text/usage';

describe('amounts', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1023.6 * 1024, '1.0 MiB'],
    [812 * 2 ** 20, '812 MiB'],
    [1.5 * 2 ** 30, '1.5 GiB'],
    [3 * 2 ** 50, '3072 TiB']
  ])('%s bytes are %s', (size, text) => expect(bytes(size)).toBe(text));

  it.each([
    [0, '0'],
    [0.254, '0.25'],
    [1.94, '1.9'],
    [12, '12']
  ])('%s cores are %s', (amount, text) => expect(cores(amount)).toBe(text));

  it('quotes a command as a shell needs it', () => {
    expect(commandLine(['python', '-c', "print('a')", 'x=1', ''])).toBe("python -c 'print('\\''a'\\'')' x=1 ''");
  });
});

describe('times', () => {
  const at = (text: string): number => new Date(text).getTime() / 1000;

  it('have a date only when it is another day', () => {
    const now = at('2026-11-29T14:00:00');
    expect(timeOfDay(at('2026-11-29T04:05:09'), now)).toBe('04:05:09');
    expect(timeOfDay(at('2026-11-28T23:59:59'), now)).toBe('2026-11-28 23:59:59');
    expect(clock(at('2026-11-29T04:05:09'), false)).toBe('04:05');
    expect(clock(at('2026-11-29T04:05:09'), true)).toBe('04:05:09');
  });
});

describe('a searched text', () => {
  const plain = (text: string, fg?: number): { text: string; style: { fg?: number } } => ({ text, style: fg === undefined ? {} : { fg } });

  it('is marked wherever it stands, over colours and in whatever case', () => {
    const found = marked([plain('Loss lo', 1), plain('ss, no'), plain('LOSS', 2)], 'loss');
    expect(found.map(({ text, style, isMarked }) => [text, style.fg, isMarked])).toEqual([
      ['Loss', 1, true],
      [' ', 1, false],
      ['lo', 1, true],
      ['ss', undefined, true],
      [', no', undefined, false],
      ['LOSS', 2, true]
    ]);
  });

  it('changes no text', () => {
    const pieces = [plain('aaaa'), plain('a b'), plain('İx')];
    for (const wanted of ['a', 'aa', 'A B', 'x', '', 'nothing']) {
      expect(marked(pieces, wanted).map(piece => piece.text).join('')).toBe('aaaaa bİx');
    }
  });
});

describe('what pods used', () => {
  const pod: PodUsage = {
    pod: 'p',
    rank: 0,
    role: 'worker',
    node: 'a',
    started_at: 100,
    seconds: [1, 2, 4],
    cpus: [1, 2, 0.5],
    memory: [10, 40, 20],
    cpu_s: 4,
    peak_memory: 50,
    asked_cpus: 2,
    asked_memory: 100
  };

  it('is summed up by time', () => {
    expect(summaryOf(pod)).toEqual({ meanCpus: 1, peakCpus: 2, meanMemory: 22.5, peakMemory: 50 });
    expect(summaryOf({ ...pod, seconds: [], cpus: [], memory: [] })).toEqual({ meanCpus: 0, peakCpus: 0, meanMemory: 0, peakMemory: 50 });
  });

  it('has one axis of time for all curves', () => {
    const curves = [
      { times: [1, 3], values: [10, 30] },
      { times: [2, 3], values: [5, 6] }
    ];
    expect(aligned(curves)).toEqual([
      [1, 2, 3],
      [10, null, 30],
      [null, 5, 6]
    ]);
  });

  it('is compared with what was asked for unless that would flatten the curves', () => {
    expect(topOf(10, 20)).toBeCloseTo(22);
    expect(topOf(10, 100)).toBeCloseTo(11);
    expect(topOf(0, 0)).toBe(1);
  });
});
