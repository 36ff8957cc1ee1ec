/** The list of jobs, virtualized: only the rows on screen exist, so 10,000 jobs cost no more than ten. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { defaultRangeExtractor, type Range, useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import type { IModel } from '../../model/tokens';
import type { IActions } from '../actions';
import { useNow } from '../hooks';
import { extended, idsOf, sorted, toggled } from './choice';
import { heightOf, RowView } from './row';
import type { Row } from './rows';

const LOAD_AHEAD = 50;
const USUAL_HEIGHT = 46;

interface IProps {
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
  rows: readonly Row[];
  chosen: ReadonlySet<string>;
  setChosen: (ids: ReadonlySet<string>) => void;
  onToggle: (key: string, isOpen: boolean) => void;
}

export function JobList({ model, actions, trans, rows, chosen, setChosen, onToggle }: IProps): React.JSX.Element {
  const scroller = React.useRef<HTMLDivElement>(null);
  const [activeKey, setActiveKey] = React.useState<string | null>(null);
  /** Where a range of chosen rows begins. */
  const anchor = React.useRef<string | null>(null);
  const found = rows.findIndex(row => row.key === activeKey);
  const active = found < 0 ? 0 : found;
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    getItemKey: index => rows[index]!.key,
    estimateSize: index => heightOf(rows[index]!),
    overscan: 8,
    // The focused row is always rendered, or scrolling would lose the focus.
    rangeExtractor: (range: Range) => {
      const shown = defaultRangeExtractor(range);
      return shown.includes(active) ? shown : [...shown, active].sort((a, b) => a - b);
    }
  });
  const heights = rows.map(heightOf).join('.');
  React.useLayoutEffect(() => virtual.measure(), [virtual, heights]);
  const items = virtual.getVirtualItems().filter(item => item.index < rows.length);
  const shown = items.map(item => rows[item.index]!);
  const shownIds = shown.flatMap(row => (row.kind === 'job' ? [row.job.id] : [])).join();
  const last = items[items.length - 1]?.index ?? 0;
  const now = useNow(shown.some(row => (row.kind === 'job' ? !row.job.is_ended : row.group.jobs.some(job => !job.is_ended))));

  React.useEffect(() => {
    model.setVisible(shownIds.split(',').filter(Boolean));
  }, [model, shownIds]);
  React.useEffect(() => {
    if (model.hasMore && last >= rows.length - LOAD_AHEAD) {
      void model.loadMore();
    }
  }, [model, rows.length, last, model.pages]);

  const goTo = (index: number): void => {
    const next = Math.min(Math.max(index, 0), rows.length - 1);
    setActiveKey(rows[next]!.key);
    virtual.scrollToIndex(next);
    // The row may exist only after the list was rendered at its new position.
    requestAnimationFrame(() => requestAnimationFrame(() => focusRow(scroller.current, next)));
  };
  const choose = (index: number, isRange: boolean): void => {
    const from = rows.findIndex(row => row.key === anchor.current);
    if (isRange && from >= 0) {
      setChosen(extended(rows, from, index, chosen));
    } else {
      anchor.current = rows[index]!.key;
      setChosen(toggled(rows[index]!, chosen));
    }
  };
  const onKeyDown = (event: React.KeyboardEvent<HTMLDivElement>): void => {
    const row = rows[active]!;
    const isOnButton = (event.target as HTMLElement).tagName === 'BUTTON';
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / USUAL_HEIGHT) - 1);
    const moves: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: rows.length - 1
    };
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === 'a') {
      setChosen(new Set(rows.flatMap(idsOf)));
    } else if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    } else if (event.key in moves) {
      const next = Math.min(Math.max(moves[event.key]!, 0), rows.length - 1);
      if (event.shiftKey) {
        anchor.current ??= row.key;
        choose(next, true);
      }
      goTo(next);
    } else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      moveInRow(event.target as HTMLElement, event.key === 'ArrowRight' ? 1 : -1);
    } else if (event.key === ' ' && !isOnButton) {
      choose(active, event.shiftKey);
    } else if (event.key === 'Escape' && chosen.size > 0) {
      setChosen(new Set());
    } else if (event.key === 'Enter' && !isOnButton && row.kind === 'group') {
      onToggle(row.key, !row.isOpen);
    } else if (event.key === 'Enter' && !isOnButton && row.kind === 'job') {
      actions.openJob(row.job.id);
    } else if (event.key === 'Delete') {
      const all = chosen.size > 0 ? chosen : new Set(idsOf(row));
      cancelOrDelete(sorted(model.jobs, all), chosen.size === 0 && row.kind === 'job');
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  /** Live ones are cancelled first: what is chosen may be both. */
  const cancelOrDelete = ({ live, ended }: ReturnType<typeof sorted>, isOne: boolean): void => {
    if (live.length > 0) {
      void (isOne ? actions.cancelJob(live[0]!.id) : actions.cancelJobs(live));
    } else if (!isOne && ended.length > 0) {
      void actions.deleteJobs(ended);
    }
  };

  return (
    <div
      ref={scroller}
      className="tl-JobList"
      role="treegrid"
      aria-label={trans.__('Jobs')}
      aria-multiselectable="true"
      aria-rowcount={model.hasMore ? -1 : rows.length}
      onKeyDown={onKeyDown}
      data-lm-suppress-shortcuts
    >
      <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {items.map(item => {
          const row = rows[item.index]!;
          return (
            <RowView
              key={item.key}
              row={row}
              index={item.index}
              top={item.start}
              isActive={item.index === active}
              chosen={chosen}
              now={now}
              actions={actions}
              trans={trans}
              onFocus={() => setActiveKey(row.key)}
              onChoose={isRange => choose(item.index, isRange)}
              onToggle={isOpen => onToggle(row.key, isOpen)}
            />
          );
        })}
      </div>
    </div>
  );
}

function focusRow(scroller: HTMLElement | null, index: number): void {
  scroller?.querySelector<HTMLElement>(`[data-index="${index}"]`)?.focus({ preventScroll: true });
}

/** Moves the focus between a row and its buttons. */
function moveInRow(from: HTMLElement, step: number): void {
  const row = from.closest<HTMLElement>('[role="row"]');
  if (row !== null) {
    const stops = [row, ...row.querySelectorAll<HTMLElement>('button')];
    stops[Math.min(Math.max(stops.indexOf(from) + step, 0), stops.length - 1)]?.focus();
  }
}
