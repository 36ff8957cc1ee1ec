/** The one state that all views share: what was fetched, what a notice made stale, and whether the control plane answers. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { type IRequests, Refusal } from './client';
import { Paced } from './paced';
import type { Cluster, Connection, IFilter, IModel, INotice, Job, JobPage, LogPage, Part, Queue, Run } from './tokens';

export const FIRST_PAGE = 200;
const NEXT_PAGE = 500;
/** Beyond so many changed jobs one request for the first page costs less than one for each. */
const MOST_SINGLE = 20;
const PACE = { jobs: 100, quota: 500, runs: 250, seen: 1000, resync: 500, retry: 2000 };
const RUNS_LIMIT = '50';

export class Model implements IModel, IDisposable {
  constructor(private readonly _requests: IRequests) {}

  get connection(): Connection {
    return this._connection;
  }
  get detail(): string {
    return this._detail;
  }
  get jobs(): readonly Job[] {
    return this._jobs;
  }
  get hasMore(): boolean {
    return this._cursor !== null;
  }
  get pages(): number {
    return this._pages;
  }
  get filter(): IFilter {
    return this._filter;
  }
  get queues(): readonly Queue[] {
    return this._queues;
  }
  get clusters(): readonly Cluster[] {
    return this._clusters;
  }
  get runs(): readonly Run[] {
    return this._runs;
  }
  get changed(): ISignal<IModel, Part> {
    return this._changed;
  }
  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    for (const paced of [this._fetchChanged, this._fetchQuota, this._fetchRuns, this._fetchSeen, this._resync]) {
      paced.dispose();
    }
    Signal.clearData(this);
  }

  job(id: string): Job | undefined {
    return this._byId.get(id);
  }

  run(id: string): Run | undefined {
    return this._runs.find(run => run.id === id) ?? this._otherRuns.get(id);
  }

  // --- news ------------------------------------------------------------------------------------------------------

  /** Take in a notice of the server's. */
  notice(notice: INotice): void {
    if (notice.status === 'down') {
      this._setConnection('down', notice.detail);
      return;
    }
    const hasMissed = this._seq !== null && notice.since !== this._seq;
    this._seq = notice.seq;
    if (this._connection !== 'up' || notice.resync || hasMissed) {
      this._setConnection('up', '');
      this._resync.ask();
      return;
    }
    for (const id of notice.jobs) {
      this._pending.add(id);
    }
    if (notice.jobs.length > 0) {
      this._markWaiting();
      this._fetchChanged.ask();
    }
    if (notice.jobs.length > 0 || notice.site) {
      this._fetchQuota.ask();
    }
    if (notice.runs.length > 0 || this._concernsRun(notice.jobs)) {
      this._fetchRuns.ask();
    }
  }

  /** Ask the server how things are: at the start, and now and then in case that notices were lost. */
  async checkStatus(): Promise<void> {
    let status: INotice;
    try {
      status = await this._requests.get<INotice>('status');
    } catch (error) {
      this._setConnection('server', messageOf(error));
      return;
    }
    if (status.status === 'down') {
      this._setConnection('down', status.detail);
    } else if (this._connection !== 'up') {
      this._seq = status.seq;
      this._setConnection('up', '');
      this._resync.ask();
    } else if (this._seq !== null && status.seq > this._seq) {
      // A notice may be on its way: only what is still missing later was lost.
      const seen = this._seq;
      setTimeout(() => {
        if (!this._isDisposed && this._seq === seen) {
          this._seq = status.seq;
          this._resync.ask();
        }
      }, 500);
    }
  }

  async refresh(): Promise<void> {
    await this.checkStatus();
    if (this._connection === 'up') {
      this._resync.ask();
    }
  }

  see(ids: readonly string[]): void {
    this._seen = ids;
    if (ids.some(id => this._stale.has(id))) {
      this._fetchSeen.ask();
    }
  }

  setFilter(filter: Partial<IFilter>): void {
    const next = { ...this._filter, ...filter };
    if (next.ended === this._filter.ended && next.text === this._filter.text) {
      return;
    }
    this._filter = next;
    this._forget();
    this._emit('jobs');
    this._resync.ask();
  }

  async loadMore(): Promise<void> {
    if (this._cursor === null || this._isLoadingMore || this._connection !== 'up') {
      return;
    }
    this._isLoadingMore = true;
    const generation = this._generation;
    try {
      const page = await this._requests.get<JobPage>('jobs', this._listQuery(NEXT_PAGE, this._cursor));
      if (generation === this._generation) {
        this._cursor = page.next;
        page.jobs.forEach(job => this._paged.add(job.id));
        this._takeIn(page.jobs);
      }
    } catch (error) {
      this._failed(error);
      await new Promise(resolve => setTimeout(resolve, PACE.retry));
    } finally {
      this._isLoadingMore = false;
    }
    this._countPage();
  }

  // --- single things ---------------------------------------------------------------------------------------------

  async fetchJob(id: string): Promise<Job> {
    return this._requests.get<Job>(`jobs/${encodeURIComponent(id)}`);
  }

  async fetchRun(id: string): Promise<Run> {
    const run = await this._requests.get<Run>(`runs/${encodeURIComponent(id)}`);
    if (!this._runs.some(other => other.id === run.id)) {
      this._otherRuns.set(run.id, run);
      this._emit('runs');
    }
    return run;
  }

  async startControlPlane(): Promise<void> {
    await this._requests.post('start');
    await this.checkStatus();
  }

  async cancelJob(id: string): Promise<void> {
    this._takeIn([await this._requests.post<Job>(`jobs/${encodeURIComponent(id)}/cancel`)]);
  }

  async retryJob(id: string): Promise<Job> {
    const job = await this._requests.post<Job>(`jobs/${encodeURIComponent(id)}/retry`);
    this._takeIn([job]);
    return job;
  }

  async cancelRun(id: string): Promise<void> {
    await this._requests.post<Run>(`runs/${encodeURIComponent(id)}/cancel`);
    this._fetchRuns.ask();
  }

  async retryRun(id: string): Promise<void> {
    await this._requests.post<Run>(`runs/${encodeURIComponent(id)}/retry`);
    this._fetchRuns.ask();
  }

  logs(id: string, rank: number, start: number, limit: number): Promise<LogPage> {
    const query = { rank: String(rank), start: String(start), limit: String(limit) };
    return this._requests.get<LogPage>(`jobs/${encodeURIComponent(id)}/logs`, query);
  }

  async openBoard(id: string): Promise<string> {
    return (await this._requests.post<{ path: string }>(`jobs/${encodeURIComponent(id)}/tensorboard`)).path;
  }

  // --- fetching --------------------------------------------------------------------------------------------------

  private readonly _resync = new Paced(async () => {
    this._pending.clear();
    await Promise.all([this._loadFirst(), this._loadQuota(), this._loadRuns()]);
  }, PACE.resync);

  private readonly _fetchChanged = new Paced(async () => {
    const ids = [...this._pending];
    this._pending.clear();
    if (ids.length > MOST_SINGLE) {
      ids.forEach(id => this._stale.add(id));
      await this._loadFirst();
      this.see(this._seen);
    } else {
      await this._loadEach(ids);
    }
  }, PACE.jobs);

  private readonly _fetchSeen = new Paced(async () => {
    const ids = this._seen.filter(id => this._stale.has(id));
    ids.forEach(id => this._stale.delete(id));
    await this._loadEach(ids);
  }, PACE.seen);

  private readonly _fetchQuota = new Paced(() => this._loadQuota(), PACE.quota);
  private readonly _fetchRuns = new Paced(() => this._loadRuns(), PACE.runs);

  private async _loadFirst(): Promise<void> {
    const generation = this._generation;
    try {
      const page = await this._requests.get<JobPage>('jobs', this._listQuery(FIRST_PAGE));
      if (generation !== this._generation) {
        return;
      }
      const oldest = page.jobs[page.jobs.length - 1];
      const fresh = new Set(page.jobs.map(job => job.id));
      if (page.next !== null && !page.jobs.some(job => this._paged.has(job.id))) {
        // So many are new that the page does not reach what pages brought before: what lies between would be missing.
        this._byId.clear();
        this._paged.clear();
        this._jobs = [];
        // An older page that is on its way would leave a hole.
        this._generation += 1;
      }
      for (const job of this._jobs) {
        const isInRange = page.next === null || oldest === undefined || job.created_at > oldest.created_at;
        if (!fresh.has(job.id) && isInRange) {
          // The page would hold it: it was deleted, or has ended and is not asked for.
          this._byId.delete(job.id);
        } else if (!fresh.has(job.id)) {
          this._stale.add(job.id);
        }
      }
      fresh.forEach(id => this._stale.delete(id));
      if (this._paged.size <= FIRST_PAGE) {
        this._cursor = page.next;
      }
      fresh.forEach(id => this._paged.add(id));
      this._takeIn(page.jobs, true);
      this.see(this._seen);
      this._countPage();
    } catch (error) {
      this._failed(error);
    }
  }

  private async _loadEach(ids: readonly string[]): Promise<void> {
    const generation = this._generation;
    const gone: string[] = [];
    const found = await Promise.all(
      ids.map(async id => {
        try {
          return await this.fetchJob(id);
        } catch (error) {
          if (error instanceof Refusal && error.status === 404) {
            gone.push(id);
          } else {
            this._stale.add(id);
            this._failed(error);
          }
          return null;
        }
      })
    );
    if (generation !== this._generation) {
      return;
    }
    gone.forEach(id => this._byId.delete(id));
    this._takeIn(
      found.filter((job): job is Job => job !== null),
      gone.length > 0
    );
  }

  private async _loadQuota(): Promise<void> {
    try {
      const [queues, clusters] = await Promise.all([
        this._requests.get<Queue[]>('quota'),
        this._requests.get<Cluster[]>('clusters')
      ]);
      this._queues = queues;
      this._clusters = clusters;
      this._emit('quota');
    } catch (error) {
      this._failed(error);
    }
  }

  private async _loadRuns(): Promise<void> {
    try {
      this._runs = await this._requests.get<Run[]>('runs', { limit: RUNS_LIMIT });
      for (const id of [...this._otherRuns.keys()]) {
        if (this._runs.some(run => run.id === id)) {
          this._otherRuns.delete(id);
        } else if (!this._otherRuns.get(id)!.is_ended) {
          this._otherRuns.set(id, await this._requests.get<Run>(`runs/${encodeURIComponent(id)}`));
        }
      }
      this._emit('runs');
    } catch (error) {
      this._failed(error);
    }
  }

  private _listQuery(limit: number, cursor?: string): Record<string, string> {
    const query: Record<string, string> = { limit: String(limit), all: String(this._filter.ended) };
    if (this._filter.text) {
      query['text'] = this._filter.text;
    }
    if (cursor !== undefined) {
      query['cursor'] = cursor;
    }
    return query;
  }

  // --- state -----------------------------------------------------------------------------------------------------

  /** Put fetched jobs where they belong; `force` says so even when none of them is listed. */
  private _takeIn(jobs: readonly Job[], force = false): void {
    let isChanged = force;
    for (const job of jobs) {
      if (this._isListed(job)) {
        this._byId.set(job.id, job);
        isChanged = true;
        if (isUnexplained(job)) {
          this._stale.add(job.id);
        }
      } else {
        isChanged = this._byId.delete(job.id) || isChanged;
      }
    }
    if (isChanged) {
      this._jobs = [...this._byId.values()].sort(compare);
      this._emit('jobs');
      this.see(this._seen);
    }
  }

  private _countPage(): void {
    this._pages += 1;
    this._emit('jobs');
  }

  private _isListed(job: Job): boolean {
    if (job.is_ended && !this._filter.ended) {
      return false;
    }
    // What the text is looked for in is the service's to say: a job that the list brought stays, a new one has to match by name.
    const text = this._filter.text.toLowerCase();
    return text === '' || this._byId.has(job.id) || job.name.toLowerCase().includes(text) || job.id.startsWith(text);
  }

  private _markWaiting(): void {
    // One that starts moves all behind it, and no change of theirs says so.
    for (const job of this._jobs) {
      if (job.wait !== null || isUnexplained(job)) {
        this._stale.add(job.id);
      }
    }
    this.see(this._seen);
  }

  private _concernsRun(ids: readonly string[]): boolean {
    const live = [...this._runs, ...this._otherRuns.values()].filter(run => !run.is_ended);
    if (live.length === 0) {
      return false;
    }
    // A node's job may be new to us, so any job that we do not know may be one.
    return ids.some(id => !this._byId.has(id) || live.some(run => run.nodes.some(node => node.job_id === id)));
  }

  private _forget(): void {
    this._generation += 1;
    this._byId.clear();
    this._paged.clear();
    this._jobs = [];
    this._stale.clear();
    this._pending.clear();
    this._cursor = null;
  }

  private _failed(error: unknown): void {
    if (error instanceof Refusal && error.status === 503) {
      this._setConnection('down', error.message);
    } else if (!(error instanceof Refusal)) {
      this._setConnection('server', messageOf(error));
    } else {
      console.warn('tuttilab:', error.message);
    }
  }

  private _setConnection(connection: Connection, detail: string): void {
    if (connection !== this._connection || detail !== this._detail) {
      this._connection = connection;
      this._detail = detail;
      this._emit('connection');
    }
  }

  private _emit(part: Part): void {
    if (!this._isDisposed) {
      this._changed.emit(part);
    }
  }

  private readonly _changed = new Signal<this, Part>(this);
  private readonly _byId = new Map<string, Job>();
  private readonly _otherRuns = new Map<string, Run>();
  /** Jobs that came in pages, which follow each other without a gap; a job that was fetched alone tells nothing of its neighbours. */
  private readonly _paged = new Set<string>();
  private readonly _stale = new Set<string>();
  private readonly _pending = new Set<string>();
  private _connection: Connection = 'connecting';
  private _detail = '';
  private _jobs: readonly Job[] = [];
  private _queues: readonly Queue[] = [];
  private _clusters: readonly Cluster[] = [];
  private _runs: readonly Run[] = [];
  private _filter: IFilter = { ended: true, text: '' };
  private _cursor: string | null = null;
  private _seen: readonly string[] = [];
  private _seq: number | null = null;
  private _generation = 0;
  private _pages = 0;
  private _isLoadingMore = false;
  private _isDisposed = false;
}

/** Newest first. Jobs of one batch share their time and stay in the order in which the service lists them. */
function compare(a: Job, b: Job): number {
  return b.created_at - a.created_at;
}

/** The scheduler has not looked at it yet. It will in a moment, and no change says when. */
function isUnexplained(job: Job): boolean {
  return job.phase === 'Queued' && job.wait === null;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
