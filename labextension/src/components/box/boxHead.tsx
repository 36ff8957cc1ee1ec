/** The first line of a cell's output box, drawn from the live model: what the kernel said last may be long past. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { messageOf, Refusal } from '../../model/client';
import type { IModel, Job } from '../../model/tokens';
import { lookName, lookOf, timeOfDay } from '../../text/format';
import { useModel, useNow } from '../hooks';
import { PhaseIcon } from '../phase';
import { countPhases, countsText, type IBox, jobFacts, newestOfEach, titleOf } from './boxData';

/** Between two requests for a job that the list does not keep fresh. */
const UNLISTED_MS = 3000;
const LISTED_MS = 15_000;
/** A map of so many elements is counted once a second. */
const ELEMENTS_PER_SECOND = 50;

export interface IBoxActions {
  openJob(id: string): void;
  openLogs(id: string): void;
  /** Show a map's jobs in the sidebar. */
  showJobs(text: string): void;
}

interface IProps {
  box: IBox;
  model: IModel;
  actions: IBoxActions;
  trans: TranslationBundle;
  /** The true end, when the kernel did not say it. */
  onEnd: (ended: readonly Job[]) => void;
}

export function BoxHead(props: IProps): React.JSX.Element {
  return props.box.stem ? <MapHead {...props} /> : <JobHead {...props} />;
}

function JobHead({ box, model, actions, trans, onEnd }: IProps): React.JSX.Element {
  const fetch = React.useCallback(async () => [await model.fetchJob(box.id)], [model, box.id]);
  const listed = useListed(model, box.id);
  const { jobs, problem, isGone } = useFetched(model, fetch, !box.isEnded, listed === undefined ? UNLISTED_MS : LISTED_MS);
  const fetched = jobs?.[0];
  // Whichever knows of the end is the newer one.
  const job = fetched?.is_ended ? fetched : (listed ?? fetched);
  useEnd(job?.is_ended && !box.isEnded ? [job] : null, onEnd);
  const phase = job?.phase ?? box.phase;
  const isLive = !box.isEnded && !isGone && !(job?.is_ended ?? false);
  const now = useNow(isLive);
  const links = (
    <Links>
      <Link label={trans.__('Open log')} onClick={() => actions.openLogs(box.id)} />
      <Link label={trans.__('Open job')} onClick={() => actions.openJob(box.id)} />
    </Links>
  );
  if (box.isEnded) {
    return <div className="tl-Box-head">{links}</div>;
  }
  const unknown = job?.is_ended ? null : lastSeen(box, phase, problem, isGone, model, now, trans);
  const facts = unknown ?? (job === undefined ? [] : jobFacts(job, now, trans));
  return (
    <div className="tl-Box-head" role="status" aria-live="off">
      <span className="tl-Box-state">
        <PhaseIcon phase={isGone ? 'Cancelled' : phase} trans={trans} />
        <b>
          <bdi>{titleOf(box)}</bdi>:
        </b>{' '}
        <span>{[...(unknown === null ? [lookName(lookOf(phase), trans)] : []), ...facts].join(' · ')}</span>
      </span>
      {!isGone && links}
    </div>
  );
}

function MapHead({ box, model, actions, trans, onEnd }: IProps): React.JSX.Element {
  const fetch = React.useCallback(async () => newestOfEach(await model.fetchNamed(box.stem)), [model, box.stem]);
  const pause = Math.max(UNLISTED_MS, (box.count / ELEMENTS_PER_SECOND) * 1000);
  const { jobs, problem } = useFetched(model, fetch, !box.isEnded, pause);
  const isGone = jobs !== undefined && jobs.length === 0;
  const phases = jobs === undefined || isGone ? box.phases : countPhases(jobs);
  const isEnded = jobs !== undefined && jobs.length > 0 && jobs.every(job => job.is_ended);
  useEnd(isEnded && !box.isEnded ? jobs : null, onEnd);
  const links = (
    <Links>
      <Link label={trans.__('Show its jobs')} onClick={() => actions.showJobs(box.stem)} />
    </Links>
  );
  if (box.isEnded) {
    return <div className="tl-Box-head">{links}</div>;
  }
  const total = jobs !== undefined && !isGone ? jobs.length : box.count;
  const done = (jobs ?? []).filter(job => job.is_ended).length;
  const now = Date.now() / 1000;
  const facts = lastSeen(box, '', problem, isGone, model, now, trans) ?? [trans.__('%1 of %2 done', done, total)];
  return (
    <div className="tl-Box-head" role="status" aria-live="off">
      <span className="tl-Box-state">
        <progress max={Math.max(1, total)} value={done} aria-label={trans.__('%1 of %2 done', done, total)} />
        <b>
          <bdi>{box.name}</bdi>:
        </b>{' '}
        <span>{[...facts, countsText(phases, trans)].filter(Boolean).join(' · ')}</span>
      </span>
      {!isGone && links}
    </div>
  );
}

/** Why the true state is not known, and what was known; null when it is known. */
function lastSeen(
  box: IBox,
  phase: string,
  problem: string,
  isGone: boolean,
  model: IModel,
  now: number,
  trans: TranslationBundle
): string[] | null {
  const seen = phase
    ? trans.__('%1 when last seen, %2', lookName(lookOf(phase), trans), timeOfDay(box.at, now))
    : trans.__('last seen %1', timeOfDay(box.at, now));
  if (isGone) {
    return [trans.__('deleted, or not yours'), seen];
  }
  if (model.connection === 'down' || model.connection === 'server') {
    return [trans.__('the control plane does not answer'), seen];
  }
  return problem ? [problem, seen] : null;
}

function Links({ children }: { children: React.ReactNode }): React.JSX.Element {
  return <span className="tl-Box-links">{children}</span>;
}

function Link({ label, onClick }: { label: string; onClick: () => void }): React.JSX.Element {
  return (
    <button type="button" className="tl-Link" onClick={onClick}>
      {label}
    </button>
  );
}

function useListed(model: IModel, id: string): Job | undefined {
  useModel(model, 'jobs', 'connection');
  return model.job(id);
}

/** Jobs by a request that is repeated until all have ended. `isGone`: there are none, or no more. */
function useFetched(
  model: IModel,
  fetch: () => Promise<Job[]>,
  isNeeded: boolean,
  pauseMs: number
): { jobs: Job[] | undefined; problem: string; isGone: boolean } {
  useModel(model, 'connection');
  const [jobs, setJobs] = React.useState<Job[] | undefined>(undefined);
  const [problem, setProblem] = React.useState('');
  const [isGone, setGone] = React.useState(false);
  const isUp = model.connection === 'up';
  const isDone = jobs !== undefined && jobs.every(job => job.is_ended);
  const isOpen = isNeeded && isUp && !isGone && !isDone;
  React.useEffect(() => {
    if (!isOpen) {
      return undefined;
    }
    let isCurrent = true;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async (): Promise<void> => {
      try {
        if (document.visibilityState === 'visible') {
          const found = await fetch();
          if (isCurrent) {
            setJobs(found);
            setProblem('');
          }
        }
      } catch (error) {
        if (isCurrent) {
          const isMissing = error instanceof Refusal && error.status === 404;
          setGone(isMissing);
          setProblem(isMissing ? '' : messageOf(error));
        }
      }
      if (isCurrent) {
        timer = setTimeout(() => void ask(), pauseMs);
      }
    };
    void ask();
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [fetch, isOpen, pauseMs]);
  return { jobs, problem, isGone };
}

function useEnd(ended: readonly Job[] | null, onEnd: (ended: readonly Job[]) => void): void {
  const isEnded = ended !== null;
  React.useEffect(() => {
    if (ended !== null) {
      onEnd(ended);
    }
  }, [isEnded]);
}
