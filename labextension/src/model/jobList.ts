/** The loaded part of the job list: pages and single jobs merged in one order, and which of them may be stale. No requests. */

import type { IFilter, Job, JobPage } from './tokens';

export const FIRST_PAGE = 200;

export class JobList {
  /** Newest first. Replaced, never changed in place. */
  get jobs(): readonly Job[] {
    return this._jobs;
  }
  get filter(): IFilter {
    return this._filter;
  }
  /** Where the next page begins; null when everything is loaded. */
  get cursor(): string | null {
    return this._cursor;
  }
  /** Changes when a page that is still on its way must be dropped. */
  get generation(): number {
    return this._generation;
  }

  get(id: string): Job | undefined {
    return this._byId.get(id);
  }

  has(id: string): boolean {
    return this._byId.has(id);
  }

  /** False when it is the filter that is set already; else the list is empty afterwards. */
  setFilter(filter: Partial<IFilter>): boolean {
    const next = { ...this._filter, ...filter };
    if (next.ended === this._filter.ended && next.text === this._filter.text) {
      return false;
    }
    this._filter = next;
    this._generation += 1;
    this._byId.clear();
    this._paged.clear();
    this._jobs = [];
    this._stale.clear();
    this._cursor = null;
    return true;
  }

  query(limit: number, cursor?: string): Record<string, string> {
    const query: Record<string, string> = { limit: String(limit), all: String(this._filter.ended) };
    if (this._filter.text) {
      query['text'] = this._filter.text;
    }
    if (cursor !== undefined) {
      query['cursor'] = cursor;
    }
    return query;
  }

  /** A page after the last one. Its jobs are put by `put`, as those of `startPage`. */
  appendPage(page: JobPage): void {
    this._cursor = page.next;
    page.jobs.forEach(job => this._paged.add(job.id));
  }

  /** The first page, fetched again: removes what it no longer has and marks what lies beyond it as stale. */
  startPage(page: JobPage): void {
    const oldest = page.jobs[page.jobs.length - 1];
    const fresh = new Set(page.jobs.map(job => job.id));
    if (page.next !== null && !page.jobs.some(job => this._paged.has(job.id))) {
      // So many are new that the page does not reach the pages loaded before: the jobs in between would be missing.
      this._byId.clear();
      this._paged.clear();
      this._jobs = [];
      // An older page that is on its way would leave a hole.
      this._generation += 1;
    }
    for (const job of this._jobs) {
      const isInRange = page.next === null || oldest === undefined || job.created_at > oldest.created_at;
      if (!fresh.has(job.id) && isInRange) {
        // In the page's range but not in it: deleted, or ended and filtered out.
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
  }

  /** Insert, replace or remove fetched jobs as the filter says. Whether the list changed; `force`: it changed anyhow. */
  put(jobs: readonly Job[], force = false): boolean {
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
    }
    return isChanged;
  }

  /** `put` has to follow: it makes the new order. */
  remove(ids: readonly string[]): void {
    ids.forEach(id => this._byId.delete(id));
  }

  isStale(id: string): boolean {
    return this._stale.has(id);
  }

  markStale(id: string): void {
    this._stale.add(id);
  }

  /** Those of these jobs that are stale; they count as fresh from now on. */
  takeStale(ids: readonly string[]): string[] {
    const taken = ids.filter(id => this._stale.has(id));
    taken.forEach(id => this._stale.delete(id));
    return taken;
  }

  /** A job that starts moves up all that wait behind it, and no notice names those. */
  markWaitingStale(): void {
    for (const job of this._jobs) {
      if (job.wait !== null || isUnexplained(job)) {
        this._stale.add(job.id);
      }
    }
  }

  private _isListed(job: Job): boolean {
    if (job.is_ended && !this._filter.ended) {
      return false;
    }
    // The service decides which fields the text is searched in: a job that the list brought stays, a new one has to match by name.
    const text = this._filter.text.toLowerCase();
    return text === '' || this._byId.has(job.id) || job.name.toLowerCase().includes(text) || job.id.startsWith(text);
  }

  private readonly _byId = new Map<string, Job>();
  /** Jobs that came in pages, which follow each other without a gap; a job that was fetched alone says nothing of its neighbours. */
  private readonly _paged = new Set<string>();
  private readonly _stale = new Set<string>();
  private _jobs: readonly Job[] = [];
  private _filter: IFilter = { ended: true, text: '' };
  private _cursor: string | null = null;
  private _generation = 0;
}

/** Newest first. Jobs of one batch share their time and stay in the order in which the service lists them. */
function compare(a: Job, b: Job): number {
  return b.created_at - a.created_at;
}

/** The scheduler has not considered it yet. It will in a moment, and no notice says when. */
function isUnexplained(job: Job): boolean {
  return job.phase === 'Queued' && job.wait === null;
}
