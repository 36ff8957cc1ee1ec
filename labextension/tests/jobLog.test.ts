import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import type { LogPage } from '../src/model/tokens';
import { isError, JobLog, wholeLog } from '../src/text/jobLog';
import { MOST_LINES } from '../src/text/logfile';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const settle = (ms = 3000): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

/** Logs by rank, and what was asked for. `times`: from which line on which time holds, as the service tells it. */
class Source {
  lines: Record<number, string[]> = { 0: [] };
  times: Record<number, [number, number][]> = {};
  partials: Record<number, string> = {};
  asked: string[] = [];
  hasEnded = false;

  async logs(_id: string, rank: number, start: number, limit: number, attempt: number | null = null): Promise<LogPage> {
    this.asked.push(`${rank} from ${start} of ${attempt}`);
    const all = this.lines[rank] ?? [];
    const lines = all.slice(start, start + limit);
    const next = start + lines.length;
    const partial = this.partials[rank] ?? '';
    const known = lines.length > 0 ? (this.times[rank] ?? []).filter(([number]) => number < next) : [];
    const times = known.slice(Math.max(0, known.filter(([number]) => number <= start).length - 1));
    return { pod: 'p', rank, start, lines, next, is_end: this.hasEnded && next === all.length, partial, times };
  }
}

const shown = (log: JobLog): string[] =>
  log.lines.map(line => `${line.file.rank}:${line.number + 1} ${log.plain(line)}`);

describe('a log of several ranks', () => {
  it('is one stream in the order of time', async () => {
    const source = new Source();
    source.lines = { 0: ['a', 'b', 'c', 'd', 'e'], 1: ['p', 'q', 'r'] };
    source.times = { 0: [[0, 10], [3, 30]], 1: [[0, 5], [1, 20], [2, 30]] };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();

    expect(shown(log)).toEqual(['1:1 p', '0:1 a', '0:2 b', '0:3 c', '1:2 q', '0:4 d', '0:5 e', '1:3 r']);
    expect(log.text(rank => `[${rank}] `)).toContain('[1] p\n[0] a\n');
    log.dispose();
  });

  it('takes a late line in at its time, and each line that is there stays the same one', async () => {
    const source = new Source();
    source.lines = { 0: ['a0', 'a1'], 1: ['b0'] };
    source.times = { 0: [[0, 10], [1, 20]], 1: [[0, 15]] };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();
    const before = log.lines;
    expect(shown(log)).toEqual(['0:1 a0', '1:1 b0', '0:2 a1']);

    source.lines[1]!.push('b1', 'b2', 'b3');
    source.times[1]!.push([2, 18], [3, 25]);
    await settle();

    expect(shown(log)).toEqual(['0:1 a0', '1:1 b0', '1:2 b1', '1:3 b2', '0:2 a1', '1:4 b3']);
    expect([log.lines[0], log.lines[1], log.lines[4]]).toEqual([...before]);
    expect(log.lines[4]).toBe(before[2]);
    expect(new Set(log.lines.map(line => line.key)).size).toBe(6);
    log.dispose();
  });

  it('keeps the order of each rank, whatever its clock says', async () => {
    const source = new Source();
    source.lines = { 0: ['a0', 'a1', 'a2'], 1: ['b0'] };
    source.times = { 0: [[0, 30], [1, 10], [2, 40]], 1: [[0, 30]] };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();

    expect(shown(log)).toEqual(['0:1 a0', '0:2 a1', '1:1 b0', '0:3 a2']);
    log.dispose();
  });

  it('puts what was written at an unknown time below what is there', async () => {
    const source = new Source();
    source.lines = { 0: ['a0'], 1: ['b0'] };
    source.times = { 0: [[0, 10]] };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();
    source.lines[0]!.push('a1');
    source.times[0]!.push([1, 20]);
    await settle();
    source.lines[1]!.push('b1');
    await settle();

    expect(shown(log)).toEqual(['0:1 a0', '1:1 b0', '0:2 a1', '1:2 b1']);
    log.dispose();
  });

  it('is in the order in which the lines came where no time is known, each with the number of its own log', async () => {
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

  it('keeps the newest lines of each rank, as many of each, and says how many it dropped', async () => {
    const source = new Source();
    source.lines = { 0: Array.from({ length: MOST_LINES }, (_, index) => `a${index}`), 1: ['b0', 'Killed'] };
    source.times = { 0: [[0, 10]], 1: [[0, 5], [1, 20]] };
    source.hasEnded = true;
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle(60_000);

    const half = MOST_LINES / 2;
    expect([log.lines.length, log.dropped, log.isEnd]).toEqual([half + 2, half, true]);
    expect(shown(log).slice(0, 2)).toEqual(['1:1 b0', `0:${half + 1} a${half}`]);
    expect(shown(log).slice(-2)).toEqual([`0:${MOST_LINES} a${MOST_LINES - 1}`, '1:2 Killed']);
    expect(log.firstError()).toBe(half + 1);
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

  it('finds them where they stand once an earlier line of another rank has come', async () => {
    const source = new Source();
    source.lines = { 0: ['start', 'Killed'], 1: [] };
    source.times = { 0: [[0, 10], [1, 20]], 1: [[0, 15]] };
    const log = new JobLog(source, 'j', [0, 1], null);
    log.start();
    await settle();
    expect([log.firstError(), log.find('killed')]).toEqual([1, [1]]);

    source.lines[1]!.push('ValueError: no');
    await settle();
    expect([log.firstError(), log.find('killed'), log.find('ValueError')]).toEqual([1, [2], [1]]);
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
