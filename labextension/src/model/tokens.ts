/** Types, command names and the token that the parts of this extension share with each other and with other extensions. */

import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';

import type { components } from './schema';

type Views = components['schemas'];

export type Job = Views['JobView'];
export type Wait = Views['WaitView'];
export type JobPage = Views['JobList'];
export type Queue = Views['QueueView'];
export type Use = Views['UseView'];
export type Cluster = Views['ClusterView'];
export type Run = Views['RunView'];
export type RunNode = Views['RunNodeView'];
export type LogPage = Views['LogView'];
export type Details = Views['DetailsView'];
export type ShownList = Views['ShownListView'];
export type Usage = Views['UsageView'];
export type PodUsage = Views['PodUsageView'];
export type Attempt = Views['AttemptView'];
export type Pod = Views['PodView'];
export type JobEvent = Views['EventView'];

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

/** What the server extension says when it is asked. */
export interface IStatus extends INotice {
  /** Whether the user may start the control plane: not where it is a service of a hub or a site. */
  can_start: boolean;
}

/** `server`: Jupyter's own server does not answer, so nothing is known of the control plane. */
export type Connection = 'connecting' | 'up' | 'down' | 'server';

/** The part of the model that a signal reports as changed. */
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
  /** Whether the user may start a control plane that is down. */
  readonly canStart: boolean;
  /** While the connection is not `up`: why, in one sentence. */
  readonly detail: string;
  /** Newest first; the first pages, and more as `loadMore` is called. */
  readonly jobs: readonly Job[];
  readonly hasMore: boolean;
  /** Counts pages that came, failed or were dropped: a view at the end of the list calls `loadMore` whenever it changes. */
  readonly pages: number;
  readonly filter: IFilter;
  readonly queues: readonly Queue[];
  readonly clusters: readonly Cluster[];
  /** Newest first. */
  readonly runs: readonly Run[];
  readonly changed: ISignal<IModel, Part>;
  /** Jobs as they were fetched, whether the filter lists them or not. */
  readonly fetched: ISignal<IModel, readonly Job[]>;
  job(id: string): Job | undefined;
  run(id: string): Run | undefined;
  /** Fetch a job or run that is not in the lists. */
  fetchJob(id: string): Promise<Job>;
  fetchRun(id: string): Promise<Run>;
  /** What was sent along with a job, and what it has kept. */
  details(id: string): Promise<Details>;
  /** The texts and pictures that one rank of a cell's job showed so far; none when `known` is the size of all of them. */
  shown(id: string, rank: number, known: number): Promise<ShownList>;
  /** CPU and memory over time of the first pods of an attempt. */
  usage(id: string, attempt: number): Promise<Usage>;
  /** What happened to a job, as far back as the journal is kept. */
  events(id: string): Promise<JobEvent[]>;
  /** All jobs with this text in their names, ended ones too. */
  fetchNamed(text: string): Promise<Job[]>;
  setFilter(filter: Partial<IFilter>): void;
  loadMore(): Promise<void>;
  /** These jobs are on screen: those that may be stale are fetched again. */
  setVisible(ids: readonly string[]): void;
  refresh(): Promise<void>;
  startControlPlane(): Promise<void>;
  cancelJob(id: string): Promise<void>;
  retryJob(id: string): Promise<Job>;
  deleteJob(id: string): Promise<void>;
  cancelRun(id: string): Promise<void>;
  retryRun(id: string): Promise<void>;
  /** Lines of one rank of an attempt; null: of the newest. */
  logs(id: string, rank: number, start: number, limit: number, attempt?: number | null): Promise<LogPage>;
  /** Whether the job wrote files that TensorBoard shows. */
  hasBoard(id: string): Promise<boolean>;
  /** Start a TensorBoard on the job's results. */
  openBoard(id: string): Promise<IBoard>;
}

export interface IBoard {
  /** Of its page on this server. */
  path: string;
  /** What it will not show, in a sentence, or ''. */
  note: string;
}

export const IModel = new Token<IModel>(
  '@tuttilab/labextension:IModel',
  'Jobs, quota and DAG runs of the signed-in user, live.'
);

export namespace CommandIDs {
  export const showPanel = 'tuttilab:show-panel';
  export const refresh = 'tuttilab:refresh';
  export const startControlPlane = 'tuttilab:start-control-plane';
  export const submitCell = 'tuttilab:submit-cell';
  export const submitNotebook = 'tuttilab:submit-notebook';
  export const openJob = 'tuttilab:open-job';
  export const openLogs = 'tuttilab:open-logs';
  export const cancelJob = 'tuttilab:cancel-job';
  export const retryJob = 'tuttilab:retry-job';
  export const deleteJob = 'tuttilab:delete-job';
  export const copyJobId = 'tuttilab:copy-job-id';
  export const openBoard = 'tuttilab:open-tensorboard';
  export const openRun = 'tuttilab:open-run';
  export const cancelRun = 'tuttilab:cancel-run';
  export const retryRun = 'tuttilab:retry-run';
}
