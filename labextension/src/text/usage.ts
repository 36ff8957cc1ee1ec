/** What pods used, as curves of one time axis and as sums. No drawing. */

import type { PodUsage } from '../model/tokens';

/** What one pod used in all: cores, and bytes of memory. */
export interface ISummary {
  meanCpus: number;
  peakCpus: number;
  meanMemory: number;
  peakMemory: number;
}

export function summaryOf(pod: PodUsage): ISummary {
  const whole = pod.seconds[pod.seconds.length - 1] ?? 0;
  let weighted = 0;
  pod.seconds.forEach((at, index) => {
    weighted += pod.memory[index]! * (at - (pod.seconds[index - 1] ?? 0));
  });
  return {
    meanCpus: whole > 0 ? pod.cpu_s / whole : 0,
    peakCpus: Math.max(0, ...pod.cpus),
    meanMemory: whole > 0 ? weighted / whole : 0,
    peakMemory: pod.peak_memory
  };
}

/** One curve: a time in seconds since the epoch for each value. */
export interface ICurve {
  times: readonly number[];
  values: readonly number[];
}

/** All times in order, then for each curve its value at each of them; null where it has none. */
export function aligned(curves: readonly ICurve[]): [number[], ...(number | null)[][]] {
  const times = [...new Set(curves.flatMap(curve => curve.times))].sort((a, b) => a - b);
  const places = new Map(times.map((time, index) => [time, index]));
  const columns = curves.map(curve => {
    const column = new Array<number | null>(times.length).fill(null);
    curve.times.forEach((time, index) => {
      column[places.get(time)!] = curve.values[index]!;
    });
    return column;
  });
  return [times, ...columns];
}

/** The top of an axis: above all values, and above what was asked for unless that would flatten the curves. */
export function topOf(peak: number, asked: number): number {
  const isNear = asked > 0 && asked <= 4 * peak;
  return Math.max(peak, isNear ? asked : 0) * 1.1 || 1;
}
