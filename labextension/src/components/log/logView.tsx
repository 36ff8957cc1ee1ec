/** A job's log, in its tab and on its page: which ranks, search, wrapping, download, the first error, and the lines. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Attempt, IModel, Job } from '../../model/tokens';
import { type ILogLine, JobLog, MOST_TOGETHER } from '../../text/jobLog';
import { useIsShown } from '../hooks';
import { Bar } from './bar';
import { type ILinesHandle, Lines } from './lines';

/** As the user left it last, for logs that are opened later. */
let lastWrap = false;

/** Which log is read. `rank` null: all ranks; `attempt` null: the newest. */
export interface IChoice {
  rank: number | null;
  attempt: number | null;
}

interface IProps {
  id: string;
  job: Job | undefined;
  follow: boolean;
  model: IModel;
  trans: TranslationBundle;
}

export function LogView({ id, job, follow, model, trans }: IProps): React.JSX.Element {
  const root = React.useRef<HTMLDivElement>(null);
  const input = React.useRef<HTMLInputElement>(null);
  const lines = React.useRef<ILinesHandle>(null);
  const [choice, setChoice] = React.useState<IChoice>({ rank: null, attempt: null });
  const [isFollowing, setFollowing] = React.useState(follow);
  const [isWrapped, setWrapped] = React.useState(lastWrap);
  const [query, setQuery] = React.useState('');
  const [currentLine, setCurrentLine] = React.useState<ILogLine | null>(null);
  const pods = podsOf(job, choice.attempt);
  const ranks = choice.rank !== null ? [choice.rank] : pods.length > MOST_TOGETHER ? [pods[0]!.rank] : pods.map(pod => pod.rank);
  const log = useJobLog(model, id, ranks.length > 0 ? ranks : [0], choice.attempt, job);
  const version = useChanges(log);
  const isShown = useIsShown(root);
  React.useEffect(() => log.setShown(isShown), [log, isShown]);
  const matches = React.useMemo(() => log.find(query), [log, query, version]);
  // By the line, not by its place: others may come before it.
  const current = React.useMemo(() => (currentLine === null ? -1 : log.lines.indexOf(currentLine)), [log, currentLine, version]);
  const names = new Map(pods.map(pod => [pod.rank, trans.__('%1 %2', pod.role, pod.rank)]));
  const isTogether = ranks.length > 1;

  const goTo = (index: number): void => {
    setFollowing(false);
    setCurrentLine(log.lines[index] ?? null);
    lines.current?.scrollTo(index);
  };
  const search = (text: string): void => {
    setQuery(text);
    const found = log.find(text);
    // From where one looks: the first match on screen or below it.
    const top = lines.current?.firstShown() ?? 0;
    const next = found.find(index => index >= top) ?? found[0];
    if (next !== undefined) {
      goTo(next);
    } else {
      setCurrentLine(null);
    }
  };
  const step = (by: 1 | -1): void => {
    if (matches.length > 0) {
      const after = matches.findIndex(index => (by > 0 ? index > current : index >= current));
      const place = by > 0 ? (after < 0 ? 0 : after) : after <= 0 ? matches.length - 1 : after - 1;
      goTo(matches[place]!);
    }
  };
  const onKeyDown = (event: React.KeyboardEvent): void => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === 'f') {
      input.current?.focus();
      input.current?.select();
    } else if (event.key === 'F3') {
      step(event.shiftKey ? -1 : 1);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div ref={root} className="tl-LogView" onKeyDown={onKeyDown} data-lm-suppress-shortcuts>
      <Bar
        log={log}
        job={job}
        pods={pods}
        choice={choice}
        setChoice={next => {
          setChoice(next);
          setCurrentLine(null);
        }}
        input={input}
        query={query}
        search={search}
        matches={matches}
        current={current}
        step={step}
        goToError={() => goTo(log.firstError())}
        isFollowing={isFollowing}
        setFollowing={setFollowing}
        isWrapped={isWrapped}
        setWrapped={next => {
          lastWrap = next;
          setWrapped(next);
        }}
        ranks={ranks}
        names={names}
        model={model}
        trans={trans}
      />
      {log.problem && (
        <div className="tl-Log-problem" role="status">
          {log.problem}
        </div>
      )}
      <Lines
        ref={lines}
        log={log}
        job={job}
        query={query}
        current={current}
        isFollowing={isFollowing}
        setFollowing={setFollowing}
        isWrapped={isWrapped}
        names={isTogether ? names : null}
        trans={trans}
      />
    </div>
  );
}

/** The pods that run user code, one for each rank. */
function podsOf(job: Job | undefined, number: number | null): Attempt['pods'] {
  const attempts = job?.attempts ?? [];
  const attempt = number === null ? attempts[attempts.length - 1] : attempts.find(each => each.number === number);
  const newest = new Map([...(attempt?.left ?? []), ...(attempt?.pods ?? [])].filter(pod => pod.rank >= 0).map(pod => [pod.rank, pod]));
  return [...newest.values()].sort((a, b) => a.rank - b.rank);
}

function useJobLog(model: IModel, id: string, ranks: readonly number[], attempt: number | null, job: Job | undefined): JobLog {
  const key = ranks.join();
  const log = React.useMemo(() => new JobLog(model, id, key.split(',').map(Number), attempt), [model, id, key, attempt]);
  React.useEffect(() => {
    log.start();
    return () => log.dispose();
  }, [log]);
  const newest = job?.attempts.length ?? 0;
  const [seen, setSeen] = React.useState(newest);
  React.useEffect(() => {
    // A new attempt writes a new log; the first attempt that was seen is the one that is shown already.
    if (newest > seen) {
      setSeen(newest);
      if (attempt === null && (seen > 0 || log.isEnd)) {
        log.restart();
      }
    }
  }, [newest, seen, attempt, log]);
  return log;
}

/** A number that changes with each change of the log. */
function useChanges(log: JobLog): number {
  const [version, setVersion] = React.useState(0);
  React.useEffect(() => {
    const slot = (): void => setVersion(number => number + 1);
    log.changed.connect(slot);
    return () => {
      log.changed.disconnect(slot);
    };
  }, [log]);
  return version;
}
