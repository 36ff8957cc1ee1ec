/** The list of jobs: rows of known heights, of which only those on screen exist, so 10,000 cost no more than ten. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { closeIcon, refreshIcon, textEditorIcon } from '@jupyterlab/ui-components';
import { defaultRangeExtractor, type Range, useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import { duration, elapsed, lookName, lookOf, place } from '../format';
import type { IModel, Job } from '../tokens';
import type { IActions } from './actions';
import { useModel, useNow } from './hooks';
import { PhaseIcon } from './phase';

const ROW_HEIGHT = 46;
/** Three lines for the reason, which is what somebody who waits wants to know. */
const WAITING_HEIGHT = 72;
const LOAD_AHEAD = 50;
const TYPING_PAUSE_MS = 250;

interface IProps {
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
}

export function Jobs(props: IProps): React.JSX.Element {
  const { model, trans } = props;
  useModel(model, 'jobs', 'connection');
  return (
    <div className="tl-Jobs">
      <Filter model={model} trans={trans} />
      {model.jobs.length > 0 ? <JobList {...props} /> : <Nothing model={model} trans={trans} />}
    </div>
  );
}

function Nothing({ model, trans }: { model: IModel; trans: TranslationBundle }): React.JSX.Element {
  if (model.connection !== 'up') {
    return <div className="tl-Empty" />;
  }
  const isFiltered = model.filter.text !== '' || !model.filter.ended;
  return (
    <div className="tl-Empty">
      {isFiltered ? trans.__('No job fits this filter.') : trans.__('No jobs yet. A cell that begins with %1 makes one.', '%%submit')}
    </div>
  );
}

function Filter({ model, trans }: { model: IModel; trans: TranslationBundle }): React.JSX.Element {
  const [text, setText] = React.useState(model.filter.text);
  React.useEffect(() => {
    const timer = setTimeout(() => model.setFilter({ text: text.trim() }), TYPING_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [model, text]);
  return (
    <div className="tl-Filter">
      <input
        type="search"
        className="jp-mod-styled tl-Filter-text"
        placeholder={trans.__('Filter by name')}
        aria-label={trans.__('Filter jobs by name')}
        value={text}
        onChange={event => setText(event.target.value)}
      />
      <label className="tl-Filter-ended">
        <input
          type="checkbox"
          checked={model.filter.ended}
          onChange={event => model.setFilter({ ended: event.target.checked })}
        />
        {trans.__('Ended')}
      </label>
    </div>
  );
}

function JobList({ model, actions, trans }: IProps): React.JSX.Element {
  const jobs = model.jobs;
  const scroller = React.useRef<HTMLDivElement>(null);
  const [activeId, setActiveId] = React.useState<string | null>(null);
  const found = jobs.findIndex(job => job.id === activeId);
  const active = found < 0 ? 0 : found;
  const virtual = useVirtualizer({
    count: jobs.length,
    getScrollElement: () => scroller.current,
    getItemKey: index => jobs[index]!.id,
    estimateSize: index => heightOf(jobs[index]!),
    overscan: 8,
    // The row that has the focus exists wherever the list is scrolled, or the focus would be lost.
    rangeExtractor: (range: Range) => {
      const shown = defaultRangeExtractor(range);
      return shown.includes(active) ? shown : [...shown, active].sort((a, b) => a - b);
    }
  });
  const heights = jobs.map(job => (job.wait === null ? '' : '+')).join('.');
  React.useLayoutEffect(() => virtual.measure(), [virtual, heights]);
  const items = virtual.getVirtualItems();
  const shown = items.map(item => jobs[item.index]!);
  const shownIds = shown.map(job => job.id).join();
  const last = items[items.length - 1]?.index ?? 0;
  const now = useNow(shown.some(job => !job.is_ended));

  React.useEffect(() => {
    model.see(shownIds.split(','));
  }, [model, shownIds]);
  React.useEffect(() => {
    if (model.hasMore && last >= jobs.length - LOAD_AHEAD) {
      void model.loadMore();
    }
  }, [model, jobs.length, last, model.pages]);

  const goTo = (index: number): void => {
    const next = Math.min(Math.max(index, 0), jobs.length - 1);
    setActiveId(jobs[next]!.id);
    virtual.scrollToIndex(next);
    // The row may exist only after the list was drawn at its new place.
    requestAnimationFrame(() => requestAnimationFrame(() => focusRow(scroller.current, next)));
  };
  const onKeyDown = (event: React.KeyboardEvent<HTMLDivElement>): void => {
    const job = jobs[active]!;
    const isOnButton = (event.target as HTMLElement).tagName === 'BUTTON';
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / ROW_HEIGHT) - 1);
    const moves: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: jobs.length - 1
    };
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (event.key in moves) {
      goTo(moves[event.key]!);
    } else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      moveInRow(event.target as HTMLElement, event.key === 'ArrowRight' ? 1 : -1);
    } else if (event.key === 'Enter' && !isOnButton) {
      actions.openLogs(job.id);
    } else if (event.key === 'Delete' && !job.is_ended) {
      void actions.cancelJob(job.id);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <div
      ref={scroller}
      className="tl-JobList"
      role="grid"
      aria-label={trans.__('Jobs, newest first')}
      aria-rowcount={model.hasMore ? -1 : jobs.length}
      onKeyDown={onKeyDown}
      data-lm-suppress-shortcuts
    >
      <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {items.map(item => (
          <Row
            key={item.key}
            job={jobs[item.index]!}
            index={item.index}
            top={item.start}
            isActive={item.index === active}
            now={now}
            actions={actions}
            trans={trans}
            onFocus={() => setActiveId(jobs[item.index]!.id)}
          />
        ))}
      </div>
    </div>
  );
}

interface IRowProps {
  job: Job;
  index: number;
  top: number;
  isActive: boolean;
  now: number;
  actions: IActions;
  trans: TranslationBundle;
  onFocus: () => void;
}

function Row({ job, index, top, isActive, now, actions, trans, onFocus }: IRowProps): React.JSX.Element {
  const look = lookOf(job.phase);
  const time = duration(elapsed(job, now), trans);
  const detail = detailOf(job, trans);
  const tab = isActive ? 0 : -1;
  return (
    <div
      className={`tl-Job tl-mod-${look}${isActive ? ' tl-mod-active' : ''}`}
      role="row"
      aria-rowindex={index + 1}
      tabIndex={tab}
      data-index={index}
      data-job-id={job.id}
      style={{ position: 'absolute', top: 0, left: 0, right: 0, height: heightOf(job), transform: `translateY(${top}px)` }}
      onFocus={onFocus}
      onDoubleClick={() => actions.openLogs(job.id)}
    >
      <div role="gridcell" className="tl-Job-main" title={`${job.name}\n${lookName(look, trans)}\n${detail}`}>
        <PhaseIcon phase={job.phase} trans={trans} />
        <div className="tl-Job-lines">
          <div className="tl-Job-first">
            <span className="tl-Job-name">{job.name}</span>
            <span className="tl-Job-time">{time}</span>
          </div>
          <div className="tl-Job-second">
            <span className="tl-Job-phase">{lookName(look, trans)}</span>
            {detail && <span className="tl-Job-detail">{detail}</span>}
          </div>
        </div>
      </div>
      <div role="gridcell" className="tl-Job-buttons">
        <IconButton icon={textEditorIcon} label={trans.__('Logs of %1', job.name)} tab={tab} onClick={() => actions.openLogs(job.id)} />
        {job.is_ended ? (
          <IconButton
            icon={refreshIcon}
            label={trans.__('Run %1 again', job.name)}
            tab={tab}
            onClick={() => void actions.retryJob(job.id)}
          />
        ) : (
          <IconButton
            icon={closeIcon}
            label={trans.__('Cancel %1', job.name)}
            tab={tab}
            onClick={() => void actions.cancelJob(job.id)}
          />
        )}
      </div>
    </div>
  );
}

function heightOf(job: Job): number {
  return job.wait === null ? ROW_HEIGHT : WAITING_HEIGHT;
}

/** Why it waits or how it ended, else where it is. */
function detailOf(job: Job, trans: TranslationBundle): string {
  if (job.wait !== null) {
    const sentence = job.wait.sentence;
    return job.wait.place > 0 ? trans.__('place %1: %2', job.wait.place, sentence) : sentence;
  }
  if (job.unreachable_since !== null) {
    return trans.__('the cluster does not answer');
  }
  const parts = [place(job, trans)];
  if (job.is_ended && job.reason) {
    parts.unshift(job.reason);
  }
  return [...parts.filter(Boolean), job.queue].join(' · ');
}

interface IButtonProps {
  icon: typeof closeIcon;
  label: string;
  tab?: number;
  onClick: () => void;
}

export function IconButton({ icon, label, tab, onClick }: IButtonProps): React.JSX.Element {
  return (
    <button type="button" className="tl-IconButton" title={label} aria-label={label} tabIndex={tab ?? 0} onClick={onClick}>
      <icon.react tag="span" aria-hidden="true" width="14px" height="14px" />
    </button>
  );
}

function focusRow(scroller: HTMLElement | null, index: number): void {
  scroller?.querySelector<HTMLElement>(`[data-index="${index}"]`)?.focus({ preventScroll: true });
}

/** Between a row and its buttons. */
function moveInRow(from: HTMLElement, step: number): void {
  const row = from.closest<HTMLElement>('[role="row"]');
  if (row !== null) {
    const stops = [row, ...row.querySelectorAll<HTMLElement>('button')];
    stops[Math.min(Math.max(stops.indexOf(from) + step, 0), stops.length - 1)]?.focus();
  }
}
