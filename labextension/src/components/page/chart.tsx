/** One chart of curves over time, drawn by uPlot, in the theme's colours; `label` tells what it shows to whoever cannot see it. */

import * as React from 'react';
import type uPlot from 'uplot';

import { clock } from '../../text/time';
import { aligned, type ICurve, topOf } from '../../text/usage';

const HEIGHT = 120;
const TIME_HEIGHT = 26;
const AXIS_WIDTH = 64;
const WITH_SECONDS_S = 600;
export const SERIES = 8;

interface IProps {
  label: string;
  curves: readonly (ICurve & { rank: number })[];
  /** What each pod asked for, as a dashed line where it is in reach; 0: nothing to compare with. */
  asked: number;
  format: (value: number) => string;
  /** Binary or decimal steps on the axis. */
  steps: number[];
}

export function Chart({ label, curves, asked, format, steps }: IProps): React.JSX.Element {
  const place = React.useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const plot = React.useRef<uPlot | null>(null);
  const peak = Math.max(0, ...curves.flatMap(curve => curve.values));
  const top = topOf(peak, asked);
  const isAskedShown = asked > 0 && asked <= top;
  const [times, ...columns] = aligned(curves);
  const data: uPlot.AlignedData = [times, ...columns, ...(isAskedShown ? [times.map(() => asked)] : [])];
  const newest = React.useRef({ data, top });
  newest.current = { data, top };
  const ranks = curves.map(curve => curve.rank).join();
  React.useEffect(() => {
    const node = place.current;
    let isGone = false;
    let observer: ResizeObserver | undefined;
    void import('uplot').then(({ default: UPlot }) => {
      if (isGone || node === null) {
        return;
      }
      const css = getComputedStyle(node);
      const colour = (name: string): string => css.getPropertyValue(name).trim() || 'gray';
      const text = colour('--jp-ui-font-color1');
      const grid = { stroke: colour('--jp-border-color2'), width: 1 };
      const font = `11px ${colour('--jp-ui-font-family')}`;
      const lines = curves.map(
        (curve): uPlot.Series => ({ stroke: colour(`--tl-series-${curve.rank % SERIES}`), width: 1.5, spanGaps: true, points: { show: curve.times.length < 3 } })
      );
      const line: uPlot.Series = { stroke: text, width: 1, dash: [6, 4], points: { show: false } };
      const options: uPlot.Options = {
        width: Math.max(node.clientWidth, 1),
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: () => [0, newest.current.top] } },
        axes: [
          { stroke: text, font, grid, ticks: grid, size: TIME_HEIGHT, values: (_, at) => labels(at), space: 70 },
          { stroke: text, font, grid, ticks: grid, size: AXIS_WIDTH, incrs: steps, values: (_, at) => at.map(format), space: 32 }
        ],
        series: [{}, ...lines, ...(isAskedShown ? [line] : [])]
      };
      plot.current = new UPlot(options, newest.current.data, node);
      observer = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(node.clientWidth, 1), height: HEIGHT }));
      observer.observe(node);
    });
    return () => {
      isGone = true;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [theme, ranks, isAskedShown]);
  React.useEffect(() => {
    plot.current?.setData(data);
  });
  return <div ref={place} className="tl-Chart" role="img" aria-label={label} style={{ height: HEIGHT }} />;
}

function labels(at: readonly number[]): string[] {
  const isShort = at.length > 1 && at[at.length - 1]! - at[0]! < WITH_SECONDS_S;
  return at.map(time => clock(time, isShort));
}

/** The name of Lab's theme; it changes after the theme's colours did. */
function useTheme(): string {
  const name = (): string => document.body.getAttribute('data-jp-theme-name') ?? '';
  const [theme, setTheme] = React.useState(name);
  React.useEffect(() => {
    const observer = new MutationObserver(() => setTheme(name()));
    observer.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-name'] });
    return () => observer.disconnect();
  }, []);
  return theme;
}
