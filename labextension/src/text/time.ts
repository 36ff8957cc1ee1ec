/** Times of day, the same in every language: 24 hours, with the date when it is another day. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Wait } from '../model/tokens';

const two = (value: number): string => String(value).padStart(2, '0');

/** `14:05:09` today, `2026-11-27 14:05:09` else, in the reader's time zone. Both in seconds since the epoch. */
export function timeOfDay(seconds: number, now: number): string {
  const at = new Date(seconds * 1000);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date(now * 1000).toDateString() ? clock : `${dateOf(at)} ${clock}`;
}

/** For an axis: `14:05`, with seconds where a whole chart is short. */
export function clock(seconds: number, withSeconds: boolean): string {
  const at = new Date(seconds * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}${withSeconds ? `:${two(at.getSeconds())}` : ''}`;
}

/** `starts between 14:05 and 14:20` in the reader's time; empty where no start is told. The same as in `scheduler/domain/words.py`. */
export function startText(wait: Wait, now: number, trans: TranslationBundle): string {
  const { earliest, latest } = wait;
  if (earliest === null || latest === null || now > latest) {
    return '';
  }
  if (latest - now < 60) {
    return trans.__('starts within a minute');
  }
  const first = dayAndTime(earliest, now);
  const last = dayAndTime(Math.ceil(latest / 60) * 60, now);
  if (earliest <= now || first === last || earliest - now < 0.05 * (latest - now)) {
    return trans.__('starts by %1', last);
  }
  return trans.__('starts between %1 and %2', first, last);
}

/** `14:05`, with the date on another day. */
function dayAndTime(seconds: number, now: number): string {
  const at = new Date(seconds * 1000);
  const isToday = at.toDateString() === new Date(now * 1000).toDateString();
  return isToday ? clock(seconds, false) : `${dateOf(at)} ${clock(seconds, false)}`;
}

function dateOf(at: Date): string {
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}
