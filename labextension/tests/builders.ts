/** Jobs, runs and a server of the test's own. */

import type { IRequests } from '../src/model/client';
import { Refusal } from '../src/model/client';
import type { INotice, Job, Run } from '../src/model/tokens';

export function job(id: string, more: Partial<Job> = {}): Job {
  return {
    id,
    name: `job-${id}`,
    owner: 'ana',
    group: '',
    queue: 'research',
    kind: 'batch',
    phase: 'Running',
    reason: '',
    created_at: 100,
    started_at: 101,
    ended_at: null,
    exit_code: null,
    is_ended: false,
    cluster: 'here',
    unreachable_since: null,
    priority: 0,
    run_as: null,
    pods: [],
    charge: {},
    after: [],
    retry_of: null,
    labels: {},
    command: [],
    timeout_s: null,
    wait: null,
    attempts: [],
    ...more
  };
}

export function waiting(id: string, place: number, more: Partial<Job> = {}): Job {
  const wait = {
    why: 'QueueMax',
    sentence: 'it waits',
    place,
    short: {},
    queue: null,
    role: null,
    blockers: [],
    estimated_start: null,
    earliest: null,
    latest: null,
    held_by: [],
    basis: '',
    rule: '',
    kept: null,
    passed: [],
    overtaken_s: 0,
    allowed_s: 0,
    is_protected: false
  };
  return job(id, { phase: 'Queued', started_at: null, wait, ...more });
}

export function run(id: string, jobIds: string[], more: Partial<Run> = {}): Run {
  const nodes = jobIds.map((job_id, index) => ({
    name: `n${index}`,
    phase: 'Running',
    after: index > 0 ? [`n${index - 1}`] : [],
    reason: '',
    job_id,
    started_at: null,
    ended_at: null
  }));
  return { id, name: 'nightly', owner: 'ana', phase: 'Running', created_at: 100, ended_at: null, is_ended: false, variables: {}, nodes, ...more };
}

export function notice(more: Partial<INotice>): INotice {
  return { status: 'up', detail: '', since: 0, seq: 0, resync: false, jobs: [], runs: [], site: false, ...more };
}

/** Answers from what the test put there, and remembers what was asked. */
export class FakeServer implements IRequests {
  jobs: Job[] = [];
  runs: Run[] = [];
  status: INotice = notice({ seq: 1 });
  canStart = true;
  asked: string[] = [];
  isDown = false;
  isGone = false;
  /** How long a later page of the list is on its way. */
  lagMs = 0;

  async get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    this.asked.push(path);
    if (this.isGone) {
      throw new TypeError('Failed to fetch');
    }
    if (path === 'status') {
      return { can_start: this.canStart, ...this.status } as T;
    }
    if (this.isDown) {
      throw new Refusal('unavailable', 503, 'Nobody answers.');
    }
    if (path === 'jobs') {
      if (query['cursor'] !== undefined && this.lagMs > 0) {
        await new Promise(resolve => setTimeout(resolve, this.lagMs));
      }
      const all = [...this.jobs]
        .filter(job => query['all'] === 'true' || !job.is_ended)
        .filter(job => job.name.includes(query['text'] ?? ''))
        .sort((a, b) => b.created_at - a.created_at);
      const start = Number(query['cursor'] ?? 0);
      const end = start + Number(query['limit']);
      return { jobs: all.slice(start, end), next: end < all.length ? String(end) : null } as T;
    }
    if (path.startsWith('jobs/')) {
      const found = this.jobs.find(job => job.id === path.slice(5));
      if (found === undefined) {
        throw new Refusal('not-found', 404, 'There is no such job.');
      }
      return found as T;
    }
    if (path === 'runs') {
      return this.runs as T;
    }
    return [] as T;
  }

  async post<T>(path: string): Promise<T> {
    this.asked.push(`POST ${path}`);
    const id = path.split('/')[1]!;
    this.replace(id, { phase: 'Cancelled', is_ended: true, ended_at: 200 });
    return this.jobs.find(job => job.id === id) as T;
  }

  async remove(path: string): Promise<void> {
    this.asked.push(`DELETE ${path}`);
    this.jobs = this.jobs.filter(job => job.id !== path.slice(5));
  }

  replace(id: string, more: Partial<Job>): void {
    this.jobs = this.jobs.map(job => (job.id === id ? { ...job, ...more } : job));
  }
}
