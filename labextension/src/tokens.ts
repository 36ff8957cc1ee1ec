/** What the parts of the extension, and other extensions, know of each other: types, command names, one token. */

import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';

import type { components } from './schema';

type Views = components['schemas'];

export type Job = Views['JobView'];
export type JobPage = Views['JobList'];
export type Queue = Views['QueueView'];
export type Use = Views['UseView'];
export type Cluster = Views['ClusterView'];
export type Run = Views['RunView'];
export type RunNode = Views['RunNodeView'];
export type LogPage = Views['LogView'];

/** See jupyter_ext/schemas/changed.v1.yaml. */
export interface INotice {
  status: 'up' | 'down';
  detail: string;
  since: number;
  seq: number;
  resync: boolean;
  jobs: string[];
  runs: string[];
  site: boolean;
}

/** `server`: Jupyter's own server does not answer, so nothing is known of the control plane. */
export type Connection = 'connecting' | 'up' | 'down' | 'server';

/** What a signal says has changed. */
export type Part = 'connection' | 'jobs' | 'quota' | 'runs';

/** Which jobs are listed. */
export interface IFilter {
  ended: boolean;
  text: string;
}

/**
 * Everything that the panel shows, kept fresh by push. Lists are replaced and never changed in place.
 */
export interface IModel {
  readonly connection: Connection;
  /** While it is not `up`: why, in one sentence of the service's. */
  readonly detail: string;
  /** Newest first; the first pages, and more as `loadMore` is called. */
  readonly jobs: readonly Job[];
  readonly hasMore: boolean;
  /** How many pages came, failed or were dropped so far: who looks at the end of the list asks for more whenever it changes. */
  readonly pages: number;
  readonly filter: IFilter;
  readonly queues: readonly Queue[];
  readonly clusters: readonly Cluster[];
  /** Newest first. */
  readonly runs: readonly Run[];
  readonly changed: ISignal<IModel, Part>;
  job(id: string): Job | undefined;
  run(id: string): Run | undefined;
  /** Fetch a job or run that is not in the lists. */
  fetchJob(id: string): Promise<Job>;
  fetchRun(id: string): Promise<Run>;
  setFilter(filter: Partial<IFilter>): void;
  loadMore(): Promise<void>;
  /** These jobs are on screen: what may be out of date of them is fetched anew. */
  see(ids: readonly string[]): void;
  refresh(): Promise<void>;
  startControlPlane(): Promise<void>;
  cancelJob(id: string): Promise<void>;
  retryJob(id: string): Promise<Job>;
  cancelRun(id: string): Promise<void>;
  retryRun(id: string): Promise<void>;
  logs(id: string, rank: number, start: number, limit: number): Promise<LogPage>;
  /** Start a TensorBoard on the job's results; the path of its page on this server. */
  openBoard(id: string): Promise<string>;
}

export const IModel = new Token<IModel>(
  '@tuttilab/labextension:IModel',
  'Jobs, quota and DAG runs of the signed-in user, live.'
);

export namespace CommandIDs {
  export const showPanel = 'tuttilab:show-panel';
  export const refresh = 'tuttilab:refresh';
  export const startControlPlane = 'tuttilab:start-control-plane';
  export const openLogs = 'tuttilab:open-logs';
  export const cancelJob = 'tuttilab:cancel-job';
  export const retryJob = 'tuttilab:retry-job';
  export const copyJobId = 'tuttilab:copy-job-id';
  export const openBoard = 'tuttilab:open-tensorboard';
  export const openRun = 'tuttilab:open-run';
  export const cancelRun = 'tuttilab:cancel-run';
  export const retryRun = 'tuttilab:retry-run';
}
