/** A job's log in a tab. Every character is a text node; colours are classes and numbers, links are http and https only. */

import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { closeIcon, copyIcon, refreshIcon, ToolbarButtonComponent } from '@jupyterlab/ui-components';
import { useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import type { IPiece } from '../ansi';
import { duration, elapsed, lookName, lookOf } from '../format';
import { LogFile } from '../logfile';
import { messageOf } from '../model';
import type { IModel, Job } from '../tokens';
import type { IActions } from './actions';
import { useModel, useNow } from './hooks';
import { PhaseIcon } from './phase';

const LINE_HEIGHT = 18;

interface IProps {
  id: string;
  follow: boolean;
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
}

export function Log({ id, follow, model, actions, trans }: IProps): React.JSX.Element {
  const { job, problem } = useJob(model, id);
  const [rank, setRank] = React.useState(0);
  const [isFollowing, setFollowing] = React.useState(follow);
  const file = React.useMemo(() => new LogFile(model, id, rank), [model, id, rank]);
  useLogFile(file);
  const attempt = job?.attempts.length ?? 0;
  const [firstAttempt, setFirstAttempt] = React.useState(attempt);
  React.useEffect(() => {
    // A new attempt writes a new log; the first one seen is what is shown already.
    if (attempt > firstAttempt) {
      setFirstAttempt(attempt);
      if (firstAttempt > 0 || file.isEnd) {
        file.restart();
      }
    }
  }, [attempt, firstAttempt, file]);
  return (
    <div className="tl-Log">
      <Head
        job={job}
        rank={rank}
        setRank={setRank}
        isFollowing={isFollowing}
        setFollowing={setFollowing}
        file={file}
        actions={actions}
        trans={trans}
      />
      {(problem || file.problem) && (
        <div className="tl-Log-problem" role="status">
          {problem || file.problem}
        </div>
      )}
      <Lines file={file} job={job} isFollowing={isFollowing} setFollowing={setFollowing} trans={trans} />
    </div>
  );
}

function useJob(model: IModel, id: string): { job: Job | undefined; problem: string } {
  useModel(model, 'jobs');
  const listed = model.job(id);
  const [fetched, setFetched] = React.useState<Job | undefined>(undefined);
  const [problem, setProblem] = React.useState('');
  const job = listed ?? fetched;
  const isNeeded = listed === undefined && !(fetched?.is_ended ?? false);
  React.useEffect(() => {
    if (!isNeeded) {
      return undefined;
    }
    // Not in the list, because of a filter or its age: nobody else fetches it.
    const fetch = (): void => {
      model.fetchJob(id).then(
        found => {
          setFetched(found);
          setProblem('');
        },
        (error: unknown) => setProblem(messageOf(error))
      );
    };
    fetch();
    const timer = setInterval(fetch, 5000);
    return () => clearInterval(timer);
  }, [model, id, isNeeded]);
  return { job, problem: listed === undefined ? problem : '' };
}

function useLogFile(file: LogFile): void {
  const [, setVersion] = React.useState(0);
  React.useEffect(() => {
    const slot = (): void => setVersion(version => version + 1);
    file.changed.connect(slot);
    file.start();
    return () => {
      file.changed.disconnect(slot);
      file.dispose();
    };
  }, [file]);
}

interface IHeadProps {
  job: Job | undefined;
  rank: number;
  setRank: (rank: number) => void;
  isFollowing: boolean;
  setFollowing: (isFollowing: boolean) => void;
  file: LogFile;
  actions: IActions;
  trans: TranslationBundle;
}

function Head(props: IHeadProps): React.JSX.Element {
  const { job, rank, setRank, isFollowing, setFollowing, file, actions, trans } = props;
  const now = useNow(job !== undefined && !job.is_ended);
  const attempt = job?.attempts[job.attempts.length - 1];
  const pods = attempt?.pods ?? [];
  return (
    <div className="tl-TabHead">
      {job && <PhaseIcon phase={job.phase} trans={trans} />}
      <span className="tl-TabHead-name">{job?.name ?? ''}</span>
      {job && (
        <span className="tl-TabHead-detail">
          {lookName(lookOf(job.phase), trans)} · {duration(elapsed(job, now), trans)}
          {(job.wait?.sentence ?? job.reason) && ` · ${job.wait?.sentence ?? job.reason}`}
        </span>
      )}
      <span className="tl-TabHead-space" />
      {pods.length > 1 && (
        <select
          className="jp-mod-styled tl-Log-rank"
          aria-label={trans.__('Whose log')}
          value={rank}
          onChange={event => setRank(Number(event.target.value))}
        >
          {pods.map(pod => (
            <option key={pod.rank} value={pod.rank}>
              {trans.__('%1 %2', pod.role, pod.rank)}
            </option>
          ))}
        </select>
      )}
      <label className="tl-Log-follow">
        <input type="checkbox" checked={isFollowing} onChange={event => setFollowing(event.target.checked)} />
        {trans.__('Follow')}
      </label>
      <ToolbarButtonComponent
        icon={copyIcon}
        tooltip={trans.__('Copy the log')}
        onClick={() => Clipboard.copyToSystem(file.text())}
      />
      {job && attempt && (
        <ToolbarButtonComponent
          label={trans.__('TensorBoard')}
          tooltip={trans.__('Open TensorBoard on the results')}
          onClick={() => void actions.openBoard(job.id)}
        />
      )}
      {job && !job.is_ended && (
        <ToolbarButtonComponent icon={closeIcon} label={trans.__('Cancel')} onClick={() => void actions.cancelJob(job.id)} />
      )}
      {job?.is_ended && (
        <ToolbarButtonComponent icon={refreshIcon} label={trans.__('Run again')} onClick={() => void actions.retryJob(job.id)} />
      )}
    </div>
  );
}

interface ILinesProps {
  file: LogFile;
  job: Job | undefined;
  isFollowing: boolean;
  setFollowing: (isFollowing: boolean) => void;
  trans: TranslationBundle;
}

function Lines({ file, job, isFollowing, setFollowing, trans }: ILinesProps): React.JSX.Element {
  const scroller = React.useRef<HTMLDivElement>(null);
  const count = file.lines.length;
  const virtual = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => LINE_HEIGHT,
    overscan: 30
  });
  React.useEffect(() => {
    if (isFollowing && count > 0) {
      virtual.scrollToIndex(count - 1, { align: 'end' });
    }
  }, [isFollowing, count, file]);
  const onWheel = (event: React.WheelEvent): void => {
    if (event.deltaY < 0) {
      setFollowing(false);
    }
  };
  return (
    <div
      ref={scroller}
      className="tl-Log-scroll"
      role="log"
      aria-live="off"
      aria-label={trans.__('Log of %1', job?.name ?? '')}
      tabIndex={0}
      onWheel={onWheel}
      data-lm-suppress-shortcuts
    >
      {count === 0 && <div className="tl-Empty">{emptyText(file, job, trans)}</div>}
      {file.dropped > 0 && <div className="tl-Log-dropped">{trans.__('%1 older lines are not shown.', file.dropped)}</div>}
      <div style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {virtual.getVirtualItems().map(item => (
          <div
            key={item.key}
            className="tl-Line"
            style={{ position: 'absolute', top: 0, left: 0, height: LINE_HEIGHT, transform: `translateY(${item.start}px)` }}
          >
            <span className="tl-Line-number" aria-hidden="true">
              {file.dropped + item.index + 1}
            </span>
            {file.pieces(item.index).map((piece, index) => (
              <Piece key={index} piece={piece} />
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}

function emptyText(file: LogFile, job: Job | undefined, trans: TranslationBundle): string {
  if (job?.wait) {
    return trans.__('The job waits, so it has written nothing yet.');
  }
  return file.isEnd ? trans.__('The job wrote nothing.') : trans.__('Nothing written yet.');
}

function Piece({ piece }: { piece: IPiece }): React.JSX.Element {
  const { style } = piece;
  const fg = style.inverse ? (style.bg ?? 'var(--jp-layout-color0)') : style.fg;
  const bg = style.inverse ? (style.fg ?? 'var(--jp-content-font-color1)') : style.bg;
  const css: React.CSSProperties = {};
  if (fg !== undefined) {
    css.color = typeof fg === 'number' ? `var(--tl-ansi-${fg})` : fg;
  }
  if (bg !== undefined) {
    css.backgroundColor = typeof bg === 'number' ? `var(--tl-ansi-${bg})` : bg;
  }
  if (style.bold) {
    css.fontWeight = 'bold';
  }
  if (style.dim) {
    css.opacity = 0.7;
  }
  if (style.italic) {
    css.fontStyle = 'italic';
  }
  if (style.underline) {
    css.textDecoration = 'underline';
  }
  return piece.href !== undefined ? (
    <a href={piece.href} target="_blank" rel="noopener noreferrer" style={css}>
      {piece.text}
    </a>
  ) : (
    <span style={css}>{piece.text}</span>
  );
}
