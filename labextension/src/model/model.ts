/** The state that all views share: jobs, quota, runs, and whether the control plane answers. Notices say what to fetch again. */

import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { type IRequests, messageOf, Refusal } from './client';
import { FIRST_PAGE, JobList } from './jobList';
import { Throttle } from './throttle';
import type {
  Cluster,
  Connection,
  Details,
  IBoard,
  IFilter,
  IModel,
  INotice,
  IStatus,
  Job,
  JobEvent,
  JobPage,
  LogPage,
  Part,
  Queue,
  Run,
  ShownList,
  Usage
} from './tokens';

const NEXT_PAGE = 500;
/** With more changed jobs than this, one request for the first page costs less than one for each. */
const MOST_SINGLE_FETCHES = 20;
/** Between two fetches of the same kind. */
const GAP_MS = { jobs: 100, quota: 500, runs: 250, visible: 1000, resync: 500, retry: 2000 };
const RUNS_LIMIT = '50';
const MOST_LIVE = 500;
/** Pods whose CPU and memory one page shows. */
const MOST_MEASURED = 16;
/** A map has at most 10,000 elements, some of which ran twice. */
const MOST_NAMED = 20_000;

export class Model implements IModel, IDisposable {
  constructor(private readonly _requests: IRequests) {}

  get connection(): Connection {
    return this._connection;
  }
  get canStart(): boolean {
    return this._canStart;
  }
  get detail(): string {
    return this._detail;
  }
  get jobs(): readonly Job[] {
    return this._list.jobs;
  }
  get hasMore(): boolean {
    return this._list.cursor !== null;
  }
  get pages(): number {
    return this._pages;
  }
  get filter(): IFilter {
    return this._list.filter;
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
  get fetched(): ISignal<IModel, readonly Job[]> {
    return this._fetched;
  }
  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    for (const throttle of [this._fetchChanged, this._fetchQuota, this._fetchRuns, this._fetchVisible, this._resync]) {
      throttle.dispose();
    }
    Signal.clearData(this);
  }

  job(id: string): Job | undefined {
    return this._list.get(id);
  }

  run(id: string): Run | undefined {
    return this._runs.find(run => run.id === id) ?? this._otherRuns.get(id);
  }

  // --- notices ---------------------------------------------------------------------------------------------------

  /** A notice of the server extension: what changed, or whether the control plane answers. */
  notice(notice: INotice): void {
    if (notice.status === 'down') {
      this._setConnection('down', notice.detail);
      return;
    }
    const hasMissed = this._seq !== null && notice.since !== this._seq;
    this._seq = notice.seq;
    if (this._connection !== 'up' || notice.resync || hasMissed) {
      this._setConnection('up', '');
      this._resync.trigger();
      return;
    }
    for (const id of notice.jobs) {
      this._pending.add(id);
    }
    if (notice.jobs.length > 0) {
      this._list.markWaitingStale();
      this.setVisible(this._visible);
      this._fetchChanged.trigger();
    }
    if (notice.jobs.length > 0 || notice.site) {
      this._fetchQuota.trigger();
    }
    if (notice.runs.length > 0 || this._concernsRun(notice.jobs)) {
      this._fetchRuns.trigger();
    }
  }

  /** Ask the server extension for its status: at the start, and periodically in case notices were lost. */
  async checkStatus(): Promise<void> {
    let status: IStatus;
    try {
      status = await this._requests.get<IStatus>('status');
    } catch (error) {
      this._setConnection('server', messageOf(error));
      return;
    }
    if (status.can_start !== this._canStart) {
      this._canStart = status.can_start;
      this._emit('connection');
    }
    if (status.status === 'down') {
      this._setConnection('down', status.detail);
    } else if (this._connection !== 'up') {
      this._seq = status.seq;
      this._setConnection('up', '');
      this._resync.trigger();
    } else if (this._seq !== null && status.seq > this._seq) {
      // The notice may be on its way: it was lost only when it is still missing a little later.
      const seen = this._seq;
      setTimeout(() => {
        if (!this._isDisposed && this._seq === seen) {
          this._seq = status.seq;
          this._resync.trigger();
        }
      }, 500);
    }
  }

  async refresh(): Promise<void> {
    await this.checkStatus();
    if (this._connection === 'up') {
      this._resync.trigger();
    }
  }

  setVisible(ids: readonly string[]): void {
    this._visible = ids;
    if (ids.some(id => this._list.isStale(id))) {
      this._fetchVisible.trigger();
    }
  }

  setFilter(filter: Partial<IFilter>): void {
    if (!this._list.setFilter(filter)) {
      return;
    }
    this._pending.clear();
    this._emit('jobs');
    this._resync.trigger();
  }

  async loadMore(): Promise<void> {
    const cursor = this._list.cursor;
    if (cursor === null || this._isLoadingMore || this._connection !== 'up') {
      return;
    }
    this._isLoadingMore = true;
    const generation = this._list.generation;
    try {
      const page = await this._requests.get<JobPage>('jobs', this._list.query(NEXT_PAGE, cursor));
      if (generation === this._list.generation) {
        this._list.appendPage(page);
        this._put(page.jobs);
      }
    } catch (error) {
      this._report(error);
      await new Promise(resolve => setTimeout(resolve, GAP_MS.retry));
    } finally {
      this._isLoadingMore = false;
    }
    this._countPage();
  }

  // --- single jobs and runs --------------------------------------------------------------------------------------

  async fetchJob(id: string): Promise<Job> {
    return this._requests.get<Job>(`jobs/${encodeURIComponent(id)}`);
  }

  async fetchNamed(text: string): Promise<Job[]> {
    const found: Job[] = [];
    let cursor: string | null = null;
    do {
      const query: Record<string, string> = { all: 'true', text, limit: '1000', ...(cursor === null ? {} : { cursor }) };
      const page: JobPage = await this._requests.get<JobPage>('jobs', query);
      found.push(...page.jobs);
      cursor = page.next;
    } while (cursor !== null && found.length < MOST_NAMED);
    return found;
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
    this._put([await this._requests.post<Job>(`jobs/${encodeURIComponent(id)}/cancel`)]);
  }

  async retryJob(id: string): Promise<Job> {
    const job = await this._requests.post<Job>(`jobs/${encodeURIComponent(id)}/retry`);
    this._put([job]);
    return job;
  }

  async deleteJob(id: string): Promise<void> {
    await this._requests.remove(`jobs/${encodeURIComponent(id)}`);
    this._list.remove([id]);
    this._put([], true);
  }

  async cancelRun(id: string): Promise<void> {
    await this._requests.post<Run>(`runs/${encodeURIComponent(id)}/cancel`);
    this._fetchRuns.trigger();
  }

  async retryRun(id: string): Promise<void> {
    await this._requests.post<Run>(`runs/${encodeURIComponent(id)}/retry`);
    this._fetchRuns.trigger();
  }

  logs(id: string, rank: number, start: number, limit: number, attempt: number | null = null): Promise<LogPage> {
    const query: Record<string, string> = { rank: String(rank), start: String(start), limit: String(limit) };
    if (attempt !== null) {
      query['attempt'] = String(attempt);
    }
    return this._requests.get<LogPage>(`jobs/${encodeURIComponent(id)}/logs`, query);
  }

  details(id: string): Promise<Details> {
    return this._requests.get<Details>(`jobs/${encodeURIComponent(id)}/details`);
  }

  shown(id: string, rank: number, known: number): Promise<ShownList> {
    return this._requests.get<ShownList>(`jobs/${encodeURIComponent(id)}/shown`, { rank: String(rank), known: String(known) });
  }

  usage(id: string, attempt: number): Promise<Usage> {
    return this._requests.get<Usage>(`jobs/${encodeURIComponent(id)}/usage`, { attempt: String(attempt), limit: String(MOST_MEASURED) });
  }

  events(id: string): Promise<JobEvent[]> {
    return this._requests.get<JobEvent[]>(`jobs/${encodeURIComponent(id)}/events`);
  }

  async hasBoard(id: string): Promise<boolean> {
    return (await this._requests.get<{ has_events: boolean }>(`jobs/${encodeURIComponent(id)}/tensorboard`)).has_events;
  }

  openBoard(id: string): Promise<IBoard> {
    return this._requests.post<IBoard>(`jobs/${encodeURIComponent(id)}/tensorboard`);
  }

  // --- fetching --------------------------------------------------------------------------------------------------

  private readonly _resync = new Throttle(async () => {
    this._pending.clear();
    await Promise.all([this._loadFirst(), this._loadLive(), this._loadQuota(), this._loadRuns()]);
  }, GAP_MS.resync);

  private readonly _fetchChanged = new Throttle(async () => {
    const ids = [...this._pending];
    this._pending.clear();
    if (ids.length > MOST_SINGLE_FETCHES) {
      ids.forEach(id => this._list.markStale(id));
      await this._loadFirst();
      this.setVisible(this._visible);
    } else {
      await this._loadEach(ids);
    }
  }, GAP_MS.jobs);

  private readonly _fetchVisible = new Throttle(async () => {
    await this._loadEach(this._list.takeStale(this._visible));
  }, GAP_MS.visible);

  private readonly _fetchQuota = new Throttle(() => this._loadQuota(), GAP_MS.quota);
  private readonly _fetchRuns = new Throttle(() => this._loadRuns(), GAP_MS.runs);

  private async _loadFirst(): Promise<void> {
    const generation = this._list.generation;
    try {
      const page = await this._requests.get<JobPage>('jobs', this._list.query(FIRST_PAGE));
      if (generation !== this._list.generation) {
        return;
      }
      this._list.startPage(page);
      this._put(page.jobs, true);
      this.setVisible(this._visible);
      this._countPage();
    } catch (error) {
      this._report(error);
    }
  }

  /** Those that run and wait, however old they are: they come first in the list, and the first page has only the newest. */
  private async _loadLive(): Promise<void> {
    if (!this._list.filter.ended) {
      return;
    }
    const generation = this._list.generation;
    const query = { ...this._list.query(MOST_LIVE), all: 'false' };
    try {
      const page = await this._requests.get<JobPage>('jobs', query);
      // So many wait that those that run, which are older, are beyond the page.
      const running = page.next === null ? [] : (await this._requests.get<JobPage>('jobs', { ...query, state: 'Running' })).jobs;
      if (generation === this._list.generation) {
        this._put([...page.jobs, ...running]);
      }
    } catch (error) {
      this._report(error);
    }
  }

  private async _loadEach(ids: readonly string[]): Promise<void> {
    const generation = this._list.generation;
    const missing: string[] = [];
    const found = await Promise.all(
      ids.map(async id => {
        try {
          return await this.fetchJob(id);
        } catch (error) {
          if (error instanceof Refusal && error.status === 404) {
            missing.push(id);
          } else {
            this._list.markStale(id);
            this._report(error);
          }
          return null;
        }
      })
    );
    if (generation !== this._list.generation) {
      return;
    }
    this._list.remove(missing);
    this._put(
      found.filter((job): job is Job => job !== null),
      missing.length > 0
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
      this._report(error);
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
      this._report(error);
    }
  }

  // --- state -----------------------------------------------------------------------------------------------------

  /** Merge fetched jobs into the list; `force` tells the views even when nothing of them is listed. */
  private _put(jobs: readonly Job[], force = false): void {
    if (jobs.length > 0 && !this._isDisposed) {
      this._fetched.emit(jobs);
    }
    if (this._list.put(jobs, force)) {
      this._emit('jobs');
      this.setVisible(this._visible);
    }
  }

  private _countPage(): void {
    this._pages += 1;
    this._emit('jobs');
  }

  private _concernsRun(ids: readonly string[]): boolean {
    const live = [...this._runs, ...this._otherRuns.values()].filter(run => !run.is_ended);
    if (live.length === 0) {
      return false;
    }
    // The job of a node may not be loaded yet, so any unknown job may be one.
    return ids.some(id => !this._list.has(id) || live.some(run => run.nodes.some(node => node.job_id === id)));
  }

  private _report(error: unknown): void {
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
  private readonly _fetched = new Signal<this, readonly Job[]>(this);
  private readonly _list = new JobList();
  /** Runs that were fetched by id and are not among the newest. */
  private readonly _otherRuns = new Map<string, Run>();
  /** Ids of changed jobs that are to be fetched. */
  private readonly _pending = new Set<string>();
  private _connection: Connection = 'connecting';
  private _canStart = false;
  private _detail = '';
  private _queues: readonly Queue[] = [];
  private _clusters: readonly Cluster[] = [];
  private _runs: readonly Run[] = [];
  private _visible: readonly string[] = [];
  private _seq: number | null = null;
  private _pages = 0;
  private _isLoadingMore = false;
  private _isDisposed = false;
}
