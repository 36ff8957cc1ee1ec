import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { FIRST_PAGE } from '../src/model/jobList';
import { Model } from '../src/model/model';
import { FakeServer, job, notice, run, waiting } from './builders';

let server: FakeServer;
let model: Model;

/** Let everything that is due happen. */
const settle = (ms = 3000): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
const shown = (): string[] => model.jobs.map(each => `${each.id} ${each.phase}`);

beforeEach(async () => {
  vi.useFakeTimers();
  server = new FakeServer();
  server.jobs = [job('a', { created_at: 1 }), job('b', { created_at: 2 })];
  model = new Model(server);
  await model.checkStatus();
  await settle();
  server.asked = [];
});

afterEach(() => {
  model.dispose();
  vi.useRealTimers();
});

describe('a notice', () => {
  it('fetches the job that changed, and only that', async () => {
    server.replace('a', { phase: 'Succeeded', is_ended: true });
    model.notice(notice({ since: 1, seq: 2, jobs: ['a'] }));
    await settle();

    expect(shown()).toEqual(['b Running', 'a Succeeded']);
    expect(server.asked.filter(path => path.startsWith('jobs'))).toEqual(['jobs/a']);
  });

  it('shows a new job on top', async () => {
    server.jobs.push(job('c', { created_at: 3 }));
    model.notice(notice({ since: 1, seq: 2, jobs: ['c'] }));
    await settle();

    expect(shown()).toEqual(['c Running', 'b Running', 'a Running']);
  });

  it('takes out a job that was deleted', async () => {
    server.jobs = server.jobs.filter(each => each.id !== 'a');
    model.notice(notice({ since: 1, seq: 2, jobs: ['a'] }));
    await settle();

    expect(shown()).toEqual(['b Running']);
  });

  it('that tells of many jobs fetches the list once', async () => {
    server.jobs.push(...Array.from({ length: 50 }, (_, index) => job(`n${index}`, { created_at: 10 + index })));
    model.notice(notice({ since: 1, seq: 2, jobs: server.jobs.map(each => each.id) }));
    await settle();

    expect(model.jobs.length).toBe(52);
    expect(server.asked.filter(path => path.startsWith('jobs'))).toEqual(['jobs']);
  });

  it('that does not follow the last one fetches everything', async () => {
    server.replace('a', { phase: 'Stopping' });
    model.notice(notice({ since: 7, seq: 8, jobs: ['b'] }));
    await settle();

    expect(shown()).toEqual(['b Running', 'a Stopping']);
  });

  it('twice in a row is one more fetch, not two', async () => {
    for (let seq = 1; seq < 30; seq += 1) {
      model.notice(notice({ since: seq, seq: seq + 1, jobs: ['a'] }));
    }
    await settle();

    expect(server.asked.filter(path => path === 'jobs/a').length).toBeLessThanOrEqual(2);
    expect(server.asked.filter(path => path === 'quota').length).toBeLessThanOrEqual(2);
  });

  it('makes the places of waiting jobs on screen fresh', async () => {
    server.jobs = [waiting('w', 2, { created_at: 5 }), job('b', { created_at: 2 })];
    await model.refresh();
    await settle();
    model.setVisible(['w', 'b']);
    server.jobs = [waiting('w', 1, { created_at: 5 }), job('b', { created_at: 2, phase: 'Succeeded', is_ended: true })];
    model.notice(notice({ since: 1, seq: 2, jobs: ['b'] }));
    await settle();

    expect(model.job('w')?.wait?.place).toBe(1);
  });

  it('of a node of a live run fetches the runs', async () => {
    server.runs = [run('r', ['a', 'x'])];
    await model.refresh();
    await settle();
    server.asked = [];
    model.notice(notice({ since: 1, seq: 2, jobs: ['a'] }));
    await settle();

    expect(server.asked).toContain('runs');
  });
});

describe('the control plane', () => {
  it('that is down leaves the list and says why', async () => {
    model.notice(notice({ status: 'down', detail: 'Nobody answers.' }));

    expect([model.connection, model.detail, model.jobs.length]).toEqual(['down', 'Nobody answers.', 2]);
  });

  it('is started by its users only where it is theirs', async () => {
    server.status = notice({ status: 'down', detail: 'Nobody answers.' });
    await model.checkStatus();
    expect([model.connection, model.canStart]).toEqual(['down', true]);

    server.canStart = false;
    await model.checkStatus();
    expect([model.connection, model.canStart]).toEqual(['down', false]);
  });

  it('that comes back is asked for everything', async () => {
    model.notice(notice({ status: 'down', detail: 'Nobody answers.' }));
    server.replace('a', { phase: 'Failed', is_ended: true });
    model.notice(notice({ seq: 9, resync: true }));
    await settle();

    expect(model.connection).toBe('up');
    expect(shown()).toEqual(['b Running', 'a Failed']);
  });

  it('is found to be down by a request too', async () => {
    server.isDown = true;
    model.notice(notice({ since: 1, seq: 2, jobs: ['a'] }));
    await settle();

    expect([model.connection, model.detail]).toEqual(['down', 'Nobody answers.']);
  });

  it('is not blamed when the Jupyter server is away', async () => {
    server.isGone = true;
    await model.checkStatus();

    expect(model.connection).toBe('server');
  });

  it('whose notices were lost is noticed by its number', async () => {
    server.replace('a', { phase: 'Failed', is_ended: true });
    server.status = notice({ seq: 5 });
    await model.checkStatus();
    await settle();

    expect(shown()).toEqual(['b Running', 'a Failed']);
  });
});

describe('the list', () => {
  it('brings page after page and keeps older ones when the newest is fetched again', async () => {
    server.jobs = Array.from({ length: 1000 }, (_, index) => job(`j${index}`, { created_at: index }));
    await model.refresh();
    await settle();
    expect([model.jobs.length, model.hasMore]).toEqual([FIRST_PAGE, true]);

    await model.loadMore();
    await model.loadMore();
    expect([model.jobs.length, model.hasMore]).toEqual([1000, false]);

    await model.refresh();
    await settle();
    expect(model.jobs.length).toBe(1000);
  });

  it('has no hole after a storm of which the last job came alone', async () => {
    server.jobs.push(...Array.from({ length: 1000 }, (_, index) => job(`j${index}`, { created_at: 10 + index })));
    server.jobs.push(job('last', { created_at: 5000 }));
    model.notice(notice({ since: 1, seq: 2, jobs: ['last'] }));
    await settle();
    model.notice(notice({ since: 2, seq: 1002, resync: true }));
    await settle();
    while (model.hasMore) {
      await model.loadMore();
    }

    expect(model.jobs.length).toBe(1003);
  });

  it('goes on to its end for who stays there, over a page that fails, one that is dropped and a connection that was lost', async () => {
    const old = Array.from({ length: 3000 }, (_, index) => job(`j${index}`, { created_at: 10 + index }));
    server.jobs.push(...old);
    await model.refresh();
    await settle();
    let asked = model.pages;
    model.changed.connect(() => {
      if (model.pages !== asked) {
        asked = model.pages;
        void model.loadMore();
      }
    });

    server.lagMs = 50;
    void model.loadMore();
    server.jobs.push(...Array.from({ length: 1000 }, (_, index) => job(`k${index}`, { created_at: 9000 + index })));
    model.notice(notice({ since: 1, seq: 1001, resync: true }));
    await settle(60);
    expect(model.jobs.length).toBe(FIRST_PAGE);
    server.isGone = true;
    await settle();
    expect([model.connection, model.hasMore]).toEqual(['server', true]);
    server.isGone = false;
    await model.checkStatus();
    await settle(10_000);

    expect([model.jobs.length, model.hasMore]).toEqual([4002, false]);
  });

  it('takes 10,000 jobs', async () => {
    server.jobs = Array.from({ length: 10_000 }, (_, index) => job(`j${index}`, { created_at: index }));
    await model.refresh();
    await settle();
    while (model.hasMore) {
      await model.loadMore();
    }

    expect(model.jobs.length).toBe(10_000);
  });

  it('without ended jobs drops one that ends', async () => {
    model.setFilter({ ended: false });
    await settle();
    server.replace('a', { phase: 'Succeeded', is_ended: true });
    model.notice(notice({ since: 1, seq: 2, jobs: ['a'] }));
    await settle();

    expect(shown()).toEqual(['b Running']);
  });

  it('by text leaves out a new job of another name', async () => {
    model.setFilter({ text: 'job-a' });
    await settle();
    server.jobs.push(job('c', { created_at: 3 }));
    model.notice(notice({ since: 1, seq: 2, jobs: ['c'] }));
    await settle();

    expect(shown()).toEqual(['a Running']);
  });

  it('shows a cancelled job at once', async () => {
    await model.cancelJob('a');

    expect(shown()).toEqual(['b Running', 'a Cancelled']);
    expect(server.asked).toEqual(['POST jobs/a/cancel']);
  });
});
