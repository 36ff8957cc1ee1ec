/** One row of the list: a job, or a group of jobs with a strip of their states. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { caretDownIcon, caretRightIcon, closeIcon, refreshIcon, textEditorIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { Job } from '../../model/tokens';
import { detailOf, duration, elapsed, lookName, lookOf, phaseName, timeOfDay } from '../../text/format';
import type { IActions } from '../actions';
import { IconButton } from '../iconButton';
import { PhaseIcon } from '../phase';
import { chosenOf } from './choice';
import { countStates, groupElapsed, type IGroup, type Row, STATES, stateOf } from './rows';

const ROW_HEIGHT = 46;
/** Three lines for the reason of the wait. */
const WAITING_HEIGHT = 72;
const GROUP_HEIGHT = 54;
const MOST_MARKS = 60;

export function heightOf(row: Row): number {
  return row.kind === 'group' ? GROUP_HEIGHT : row.job.wait === null ? ROW_HEIGHT : WAITING_HEIGHT;
}

interface IRowProps {
  row: Row;
  index: number;
  top: number;
  isActive: boolean;
  chosen: ReadonlySet<string>;
  now: number;
  actions: IActions;
  trans: TranslationBundle;
  onFocus: () => void;
  /** `isRange`: with all rows since the last one that was chosen. */
  onChoose: (isRange: boolean) => void;
  onToggle: (isOpen: boolean) => void;
}

export function RowView(props: IRowProps): React.JSX.Element {
  const { row, index, top, isActive, chosen, trans, onFocus, onChoose } = props;
  const state = chosenOf(row, chosen);
  const look = row.kind === 'job' ? lookOf(row.job.phase) : groupState(row.group);
  const name = row.kind === 'job' ? row.job.name : row.group.name;
  const open = (event: React.MouseEvent): void => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) {
      onChoose(event.shiftKey);
    } else if (row.kind === 'group') {
      props.onToggle(!row.isOpen);
    } else {
      props.actions.openJob(row.job.id);
    }
  };
  const isInside = row.kind === 'job' && row.group !== null;
  const place = row.kind === 'job' ? { 'data-job-id': row.job.id } : { 'data-group': row.key, 'aria-expanded': row.isOpen };
  return (
    <div
      className={`tl-Job tl-mod-${look}${isActive ? ' tl-mod-active' : ''}${isInside ? ' tl-mod-inside' : ''}${chosen.size > 0 ? ' tl-mod-choosing' : ''}`}
      role="row"
      aria-level={isInside ? 2 : 1}
      aria-rowindex={index + 1}
      aria-selected={state === 'all'}
      tabIndex={isActive ? 0 : -1}
      data-index={index}
      {...place}
      style={{ position: 'absolute', top: 0, left: 0, right: 0, height: heightOf(row), transform: `translateY(${top}px)` }}
      onFocus={onFocus}
    >
      <div role="gridcell" className="tl-Job-choice">
        <input
          type="checkbox"
          tabIndex={-1}
          aria-label={trans.__('Choose %1', name)}
          checked={state === 'all'}
          ref={box => {
            if (box !== null) {
              box.indeterminate = state === 'some';
            }
          }}
          onChange={() => undefined}
          onClick={event => onChoose(event.shiftKey)}
        />
      </div>
      {row.kind === 'job' ? <JobCells {...props} job={row.job} onOpen={open} /> : <GroupCells {...props} row={row} onOpen={open} />}
    </div>
  );
}

type CellProps = IRowProps & { onOpen: (event: React.MouseEvent) => void };

function JobCells({ job, isActive, now, actions, trans, onOpen }: CellProps & { job: Job }): React.JSX.Element {
  const detail = detailOf(job, now, trans);
  const tab = isActive ? 0 : -1;
  return (
    <>
      <div role="gridcell" className="tl-Job-main" title={`${job.name}\n${phaseName(job.phase, trans)}\n${detail}`} onClick={onOpen}>
        <PhaseIcon phase={job.phase} trans={trans} />
        <div className="tl-Job-lines">
          <div className="tl-Job-first">
            <bdi className="tl-Job-name">{job.name}</bdi>{' '}
            <span className="tl-Job-time" title={timesOf(job, now, trans)}>
              {timeOfDay(job.ended_at ?? job.started_at ?? job.created_at, now)} · {duration(elapsed(job, now), trans)}
            </span>{' '}
          </div>
          <div className="tl-Job-second">
            <span className="tl-Job-phase">{phaseName(job.phase, trans)}</span>{' '}
            {detail && (
              <span className="tl-Job-detail" dir="auto">
                {detail}
              </span>
            )}
          </div>
        </div>
      </div>
      <div role="gridcell" className="tl-Job-buttons">
        <IconButton icon={textEditorIcon} label={trans.__('Logs of %1', job.name)} tab={tab} onClick={() => actions.openLogs(job.id)} />
        {job.is_ended ? (
          <IconButton icon={refreshIcon} label={trans.__('Run %1 again', job.name)} tab={tab} onClick={() => void actions.retryJob(job.id)} />
        ) : (
          <IconButton icon={closeIcon} label={trans.__('Cancel %1', job.name)} tab={tab} onClick={() => void actions.cancelJob(job.id)} />
        )}
      </div>
    </>
  );
}

type GroupRow = Extract<Row, { kind: 'group' }>;

function GroupCells({ row, isActive, now, actions, trans, onOpen }: CellProps & { row: GroupRow }): React.JSX.Element {
  const { group, isOpen } = row;
  const counts = countStates(group.jobs);
  const parts = STATES.filter(state => counts[state] > 0).map(state => trans.__('%1 %2', counts[state], lookName(state, trans)));
  const live = group.jobs.filter(job => !job.is_ended);
  const since = Math.min(...group.jobs.map(job => job.created_at));
  const tab = isActive ? 0 : -1;
  const Caret = isOpen ? caretDownIcon : caretRightIcon;
  return (
    <>
      <div role="gridcell" className="tl-Job-main" title={`${group.kind === 'notebook' ? group.id : group.name}\n${parts.join(', ')}`} onClick={onOpen}>
        <Caret.react tag="span" className="tl-Job-caret" aria-hidden="true" width="16px" height="16px" />
        <div className="tl-Job-lines">
          <div className="tl-Job-first">
            <bdi className="tl-Job-name">{group.name}</bdi>{' '}
            <span className="tl-Job-time">
              {timeOfDay(since, now)} · {duration(groupElapsed(group, now), trans)}
            </span>{' '}
          </div>
          <div className="tl-Job-second">
            <span className="tl-Job-phase">{kindName(group, trans)}</span>{' '}
            <span className="tl-Job-detail">{parts.join(', ')}</span>
          </div>
          <Strip jobs={group.jobs} />
        </div>
      </div>
      <div role="gridcell" className="tl-Job-buttons">
        {group.kind === 'run' && (
          <IconButton icon={textEditorIcon} label={trans.__('Show the graph of %1', group.name)} tab={tab} onClick={() => actions.openRun(group.id)} />
        )}
        {live.length > 0 && (
          <IconButton
            icon={closeIcon}
            label={trans.__('Cancel %1', group.name)}
            tab={tab}
            onClick={() => void (group.kind === 'run' ? actions.cancelRun(group.id) : actions.cancelJobs(live))}
          />
        )}
      </div>
    </>
  );
}

/** A mark for each job, or for each state as wide as it is common where there are too many. */
function Strip({ jobs }: { jobs: readonly Job[] }): React.JSX.Element {
  const counts = countStates(jobs);
  return (
    <div className="tl-Run-nodes" aria-hidden="true">
      {jobs.length <= MOST_MARKS
        ? jobs.map(job => <span key={job.id} className={`tl-Run-node tl-mod-${stateOf(job.phase)}`} title={job.name} />)
        : STATES.filter(state => counts[state] > 0).map(state => (
            <span key={state} className={`tl-Run-node tl-mod-wide tl-mod-${state}`} style={{ flexGrow: counts[state] }} />
          ))}
    </div>
  );
}

/** The state that a group has as a whole: it runs as long as one of its jobs does, and has failed when one has. */
function groupState(group: IGroup): string {
  const counts = countStates(group.jobs);
  return (['running', 'waiting', 'failed', 'cancelled'] as const).find(state => counts[state] > 0) ?? 'succeeded';
}

function kindName(group: IGroup, trans: TranslationBundle): string {
  switch (group.kind) {
    case 'map':
      return trans.__('Map of %1', group.jobs.length);
    case 'run':
      return trans.__('DAG run');
    case 'notebook':
      return trans.__('Notebook');
  }
}

function timesOf(job: Job, now: number, trans: TranslationBundle): string {
  return [
    trans.__('submitted %1', timeOfDay(job.created_at, now)),
    ...(job.started_at === null ? [] : [trans.__('started %1', timeOfDay(job.started_at, now))]),
    ...(job.ended_at === null ? [] : [trans.__('ended %1', timeOfDay(job.ended_at, now))])
  ].join('\n');
}
