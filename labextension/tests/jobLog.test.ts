import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import type { LogPage } from '../src/model/tokens';
import { isError, JobLog, wholeLog } from '../src/text/jobLog';
import { MOST_LINES } from '../src/text/logfile';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const settle = (ms = 3000): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** Logs by rank, and what was asked for. */
class Source {
  lines: Record<number, string[]> = { 0: [] };
  partials: Record<number, string> = {};
  asked: string[] = [];
  hasEnded = false;

  async logs(_id: string, rank: number, start: number, limit: number, attempt: number | null = null): Promise<LogPage> {
    this.asked.push(`${rank} from ${start} of ${attempt}`);
    const all = this.lines[rank] ?? [];
    const lines = all.slice(start, start + limit);
    const next = start + lines.length;
    const partial = this.partials[rank] ?? '';
    return { pod: 'p', rank, start, lines, next, is_end: this.hasEnded && next === all.length, partial, times: [] };
  }
}

const shown = (log: JobLog): string[] =>
  Array.from({ length: log.count }, (_, index) => `${log.rankOf(index)}:${log.numberOf(index)} ${log.plain(index)}`);

describe('a log of several ranks', () => {
  it('is one stream, in the order in which the lines came, each with the number of its own log', async () => {
    const source = new Source();
    source.lines = { 0: ['a0'], 1: ['b0'] };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();
    source.lines[1]!.push('b1');
    await settle();
    source.lines[0]!.push('a1');
    await settle();

    expect(shown(log)).toEqual(['0:1 a0', '1:1 b0', '1:2 b1', '0:2 a1']);
    expect(log.text(rank => `[${rank}] `)).toBe('[0] a0\n[1] b0\n[1] b1\n[0] a1\n');
    log.dispose();
  });

  it('shows the newest state of each line that is being written', async () => {
    const source = new Source();
    source.lines = { 0: ['\u001b[31mred'], 1: [] };
    source.partials = { 0: ' 40%', 1: ' 41%' };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();
    expect(log.partials.map(({ rank, pieces }) => [rank, pieces])).toEqual([
      [0, [{ text: ' 40%', style: { fg: 1 } }]],
      [1, [{ text: ' 41%', style: {} }]]
    ]);

    source.partials = { 0: '', 1: ' 99%' };
    await settle();
    expect(log.partials.map(({ rank }) => rank)).toEqual([1]);
    log.dispose();
  });

  it('keeps the newest lines, whatever their rank', async () => {
    const source = new Source();
    source.lines = { 0: Array.from({ length: MOST_LINES }, (_, index) => `a${index}`), 1: ['b0'] };
    source.hasEnded = true;
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle(60_000);

    expect(log.count).toBeLessThanOrEqual(MOST_LINES);
    expect(log.isEnd).toBe(true);
    expect(log.plain(log.count - 1)).toBe(`a${MOST_LINES - 1}`);
  });

  it('begins anew with a new attempt, or reads the one that was chosen', async () => {
    const source = new Source();
    source.lines = { 0: ['old'] };
    const log = new JobLog(source, 'j', [0], null);
    log.start();
    await settle();
    source.lines = { 0: ['new'] };
    log.restart();
    await settle();
    expect(shown(log)).toEqual(['0:1 new']);
    log.dispose();

    source.asked = [];
    new JobLog(source, 'j', [0], 2).start();
    expect(source.asked).toEqual(['0 from 0 of 2']);
  });

  it('that nobody sees is asked for seldom, and at once when it is seen again', async () => {
    const source = new Source();
    const log = new JobLog(source, 'j', [0], null);
    log.start();
    await settle(100);
    log.setShown(false);
    await settle(20_000);
    const asked = source.asked.length;
    expect(asked).toBeLessThan(8);

    source.lines[0] = ['late'];
    log.setShown(true);
    await settle(10);
    expect(shown(log)).toEqual(['0:1 late']);
    log.dispose();
  });
});

describe('searching', () => {
  it('finds lines in whatever case, also behind colours, and in those that come later', async () => {
    const source = new Source();
    source.lines = { 0: ['Loss 1', 'other', '\u001b[32mlo\u001b[0mss 2'] };
    const log = new JobLog(source, 'j', [0], null);
    log.start();
    await settle();
    expect(log.find('LOSS')).toEqual([0, 2]);
    expect(log.find('')).toEqual([]);

    source.lines[0]!.push('loss 3');
    await settle();
    expect(log.find('loss')).toEqual([0, 2, 3]);
    log.dispose();
  });

  it('knows the first line that looks like an error', async () => {
    const source = new Source();
    source.lines = { 0: ['fine', 'error: 0.25'] };
    const log = new JobLog(source, 'j', [0], null);
    log.start();
    await settle();
    expect(log.firstError()).toBe(-1);

    source.lines[0]!.push('Traceback (most recent call last):', 'ValueError: no');
    await settle();
    expect(log.firstError()).toBe(2);
    log.dispose();
  });

  it.each([
    ['Traceback (most recent call last):', true],
    ['ValueError: invalid literal', true],
    ['torch.cuda.OutOfMemoryError: CUDA out of memory.', true],
    ['KeyboardInterrupt', true],
    ['2026-11-29 07:00:00,1 ERROR train: no data', true],
    ['gcc: error: no input files', true],
    ['tuttilab: out of memory: used 120 MiB of the 100 MiB asked for.', true],
    ['Segmentation fault (core dumped)', true],
    ['Killed', true],
    ['panic: runtime error', true],
    ['epoch 3 error: 0.12', false],
    ['mean error 0.1, 0 errors', false],
    ['no exceptions were raised', false],
    ['INFO errors=0', false]
  ])('%s: %s', (line, expected) => {
    expect(isError(line)).toBe(expected);
  });
});

it('fetches the whole log for a download, without colours', async () => {
  const source = new Source();
  source.lines = { 3: Array.from({ length: 25_000 }, (_, index) => `\u001b[1m${index}\u001b[0m`) };

  const parts = await wholeLog(source, 'j', 3, 1);

  expect(parts.join('')).toBe(Array.from({ length: 25_000 }, (_, index) => `${index}\n`).join(''));
  expect(source.asked[0]).toBe('3 from 0 of 1');
});
