import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { Refusal } from '../src/model/client';
import type { LogPage } from '../src/model/tokens';
import { LogFile, MOST_LINES } from '../src/text/logfile';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

class Source {
  lines: string[] = [];
  hasEnded = false;
  partial = '';
  asked = 0;
  problem: Error | null = null;

  async logs(_id: string, rank: number, start: number, limit: number): Promise<LogPage> {
    this.asked += 1;
    if (this.problem !== null) {
      throw this.problem;
    }
    const lines = this.lines.slice(start, start + limit);
    return { pod: 'p', rank, start, lines, next: start + lines.length, is_end: this.hasEnded, partial: this.partial, times: [] };
  }
}

it('follows until the end', async () => {
  const source = new Source();
  source.lines = ['one'];
  const file = new LogFile(source, 'a', 0);
  file.start();
  await vi.advanceTimersByTimeAsync(10);
  expect(file.lines).toEqual(['one']);

  source.lines.push('two');
  await vi.advanceTimersByTimeAsync(1000);
  expect(file.lines).toEqual(['one', 'two']);

  source.hasEnded = true;
  await vi.advanceTimersByTimeAsync(1000);
  const asked = source.asked;
  await vi.advanceTimersByTimeAsync(10_000);
  expect([file.isEnd, source.asked]).toEqual([true, asked]);
});

it('keeps the newest lines and their numbers, and colours that went before', async () => {
  const source = new Source();
  source.lines = ['\u001b[31m', ...Array.from({ length: MOST_LINES + 99 }, (_, index) => `line ${index}`)];
  source.hasEnded = true;
  const file = new LogFile(source, 'a', 0);
  file.start();
  await vi.advanceTimersByTimeAsync(5000);

  expect([file.lines.length, file.dropped, file.lines[0]]).toEqual([MOST_LINES, 100, 'line 99']);
  expect(file.pieces(5)).toEqual([{ text: 'line 104', style: { fg: 1 } }]);
});

it('says what is wrong and goes on when it is mended', async () => {
  const source = new Source();
  source.problem = new Refusal('unavailable', 503, 'Nobody answers.');
  const file = new LogFile(source, 'a', 0);
  file.start();
  await vi.advanceTimersByTimeAsync(10);
  expect(file.problem).toBe('Nobody answers.');

  source.problem = null;
  source.lines = ['back'];
  await vi.advanceTimersByTimeAsync(5000);
  expect([file.problem, file.lines]).toEqual(['', ['back']]);
});

it('that nobody looks at asks no more', async () => {
  const source = new Source();
  const file = new LogFile(source, 'a', 0);
  file.start();
  await vi.advanceTimersByTimeAsync(10);
  file.dispose();
  const asked = source.asked;
  await vi.advanceTimersByTimeAsync(10_000);
  expect(source.asked).toBe(asked);
});
