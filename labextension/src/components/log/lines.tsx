/** The lines of a log. Every character is a text node; colours are classes and numbers, links are http and https only. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import type { Job } from '../../model/tokens';
import type { IPiece } from '../../text/ansi';
import type { JobLog } from '../../text/jobLog';
import { type IMarkedPiece, marked } from '../../text/marks';

const LINE_HEIGHT = 18;
const SERIES = 8;

export interface ILinesHandle {
  /** Shows that line in the middle. */
  scrollTo(index: number): void;
  /** The first line on screen. */
  firstShown(): number;
}

interface IProps {
  log: JobLog;
  job: Job | undefined;
  query: string;
  /** The line that a search or a jump led to; -1: none. */
  current: number;
  isFollowing: boolean;
  setFollowing: (isFollowing: boolean) => void;
  isWrapped: boolean;
  /** Names of the ranks, to stand before each line; null: the lines of one rank have no prefix. */
  names: ReadonlyMap<number, string> | null;
  trans: TranslationBundle;
}

export const Lines = React.forwardRef<ILinesHandle, IProps>(function Lines(props, handle): React.JSX.Element {
  const { log, job, query, current, isFollowing, setFollowing, isWrapped, names, trans } = props;
  const scroller = React.useRef<HTMLDivElement>(null);
  const { lines, partials } = log;
  const count = lines.length + partials.length;
  const getItemKey = React.useCallback((index: number) => lines[index]?.key ?? `partial ${index - lines.length}`, [lines]);
  const virtual = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => LINE_HEIGHT,
    getItemKey,
    // What is read stays where it is when lines come in above it, unless one follows or looks at the beginning.
    anchorTo: isFollowing || (scroller.current?.scrollTop ?? 0) === 0 ? 'start' : 'end',
    overscan: 30
  });
  React.useEffect(() => virtual.measure(), [isWrapped, log]);
  const width = scroller.current?.clientWidth ?? 0;
  React.useEffect(() => {
    if (isWrapped) {
      virtual.measure();
    }
  }, [width]);
  const newest = partials.map(partial => partial.pieces.map(piece => piece.text).join('')).join('\n');
  React.useEffect(() => {
    if (isFollowing && count > 0) {
      virtual.scrollToIndex(count - 1, { align: 'end' });
    }
  }, [isFollowing, lines, count, newest, isWrapped, log]);
  React.useImperativeHandle(handle, () => ({
    scrollTo: index => virtual.scrollToIndex(index, { align: 'center' }),
    firstShown: () => virtual.getVirtualItemForOffset(scroller.current?.scrollTop ?? 0)?.index ?? 0
  }));
  const onWheel = (event: React.WheelEvent): void => {
    if (event.deltaY < 0) {
      setFollowing(false);
    }
  };
  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (event.key === 'ArrowUp' || event.key === 'PageUp' || event.key === 'Home') {
      setFollowing(false);
    } else if (event.key === 'End') {
      setFollowing(true);
    }
  };
  return (
    <div
      ref={scroller}
      className={`tl-Log-scroll${isWrapped ? ' tl-mod-wrapped' : ''}`}
      role="log"
      aria-live="off"
      aria-label={trans.__('Log of %1', job?.name ?? '')}
      tabIndex={0}
      onWheel={onWheel}
      onKeyDown={onKeyDown}
    >
      {count === 0 && <div className="tl-Empty">{emptyText(log, job, trans)}</div>}
      {log.dropped > 0 && <div className="tl-Log-dropped">{trans.__('%1 older lines are not shown.', log.dropped)}</div>}
      <div style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {virtual.getVirtualItems().map(item => {
          const line = lines[item.index];
          const { rank, pieces } = line ? { rank: line.file.rank, pieces: log.pieces(line) } : partials[item.index - lines.length]!;
          const classes = ['tl-Line', item.index === current ? 'tl-mod-current' : '', line ? '' : 'tl-mod-partial'];
          return (
            <div
              key={item.key}
              ref={isWrapped ? virtual.measureElement : undefined}
              data-index={item.index}
              className={classes.filter(Boolean).join(' ')}
              style={{ transform: `translateY(${item.start}px)` }}
            >
              <span className="tl-Line-number" aria-hidden="true">
                {line ? line.number + 1 : ''}
              </span>
              {names !== null && (
                <>
                  <span className={`tl-Line-rank tl-series-${rank % SERIES}`}>{names.get(rank) ?? rank}</span>{' '}
                </>
              )}
              <span className="tl-Line-text">
                {marked(pieces, query).map((piece, index) => (
                  <Piece key={index} piece={piece} />
                ))}
              </span>
            </div>
          );
        })}
      </div>
    </div>
  );
});

function emptyText(log: JobLog, job: Job | undefined, trans: TranslationBundle): string {
  if (job?.wait) {
    return trans.__('The job waits, so it has written nothing yet.');
  }
  return log.isEnd ? trans.__('The job wrote nothing.') : trans.__('Nothing written yet.');
}

function Piece({ piece }: { piece: IMarkedPiece }): React.JSX.Element {
  const css = cssOf(piece);
  const inner =
    piece.href !== undefined ? (
      <a href={piece.href} target="_blank" rel="noopener noreferrer" style={css}>
        {piece.text}
      </a>
    ) : (
      <span style={css}>{piece.text}</span>
    );
  return piece.isMarked ? <mark className="tl-Mark">{inner}</mark> : inner;
}

function cssOf({ style }: IPiece): React.CSSProperties {
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
  return css;
}
