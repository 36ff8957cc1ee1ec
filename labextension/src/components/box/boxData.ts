/** What a cell's output box says of its job (magics/shared/box.py), read with care: a notebook may come from anywhere. No requests. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Job } from '../../model/tokens';
import { detailOf, duration, elapsed, lookOf, phaseName, podPhaseName, timeOfDay } from '../../text/format';

export const MIME = 'application/vnd.tuttilab.job+json';
const VERSION = 1;
const ID = /^[A-Za-z0-9-]{4,64}$/;
const LONGEST = 200;
const MOST_PHASES = 20;
/** Of an id that is shown; all magics accept it. */
const SHORT_ID = 8;

/** `stem` and `count`: of a map, whose jobs share that beginning of their names; `id` is its first job. */
export interface IBox {
  id: string;
  name: string;
  phase: string;
  isEnded: boolean;
  /** Seconds since the epoch: when the kernel last said so. */
  at: number;
  stem: string;
  count: number;
  phases: ReadonlyMap<string, number>;
}

/** Null for data of another version or shape: then the box is drawn as the kernel gave it. */
export function parseBox(data: unknown): IBox | null {
  if (typeof data !== 'object' || data === null) {
    return null;
  }
  const given = data as Record<string, unknown>;
  const id = text(given['id']);
  if (given['version'] !== VERSION || !ID.test(id) || typeof given['is_ended'] !== 'boolean') {
    return null;
  }
  return {
    id,
    name: text(given['name']),
    phase: text(given['phase']),
    isEnded: given['is_ended'],
    at: number(given['at']),
    stem: text(given['stem']),
    count: number(given['count']),
    phases: phasesOf(given['phases'])
  };
}

/** The jobs of a map, one an element: of an element that ran again the newest. */
export function newestOfEach(jobs: readonly Job[]): Job[] {
  const newest = new Map<string, Job>();
  for (const job of jobs) {
    const element = job.labels['element'] ?? job.id;
    const other = newest.get(element);
    if (other === undefined || job.created_at > other.created_at) {
      newest.set(element, job);
    }
  }
  return [...newest.values()];
}

export function countPhases(jobs: readonly Job[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const job of jobs) {
    counts.set(job.phase, (counts.get(job.phase) ?? 0) + 1);
  }
  return counts;
}

export function titleOf(box: IBox): string {
  const short = box.id.slice(0, SHORT_ID);
  return box.name ? `job ${short} '${box.name}'` : `job ${short}`;
}

/** What follows the phase of a job: why it waits or how it ended, how far its gang is, and since when. */
export function jobFacts(job: Job, now: number, trans: TranslationBundle): string[] {
  const facts: string[] = [];
  if (job.wait !== null || job.unreachable_since !== null || (job.is_ended && lookOf(job.phase) !== 'succeeded')) {
    facts.push(detailOf(job, now, trans, { isShort: true }));
  }
  const pods = (job.attempts[job.attempts.length - 1]?.pods ?? []).filter(pod => pod.rank >= 0);
  if (pods.length > 1 && !job.is_ended) {
    facts.push(countsText(countOf(pods.map(pod => pod.phase)), trans, podPhaseName));
  }
  const time = duration(elapsed(job, now), trans);
  if (job.is_ended) {
    facts.push(job.started_at === null ? trans.__('waited %1', time) : time);
    facts.push(trans.__('ended %1', timeOfDay(job.ended_at ?? now, now)));
  } else if (job.started_at !== null) {
    facts.push(trans.__('%1, since %2', time, timeOfDay(job.started_at, now)));
  } else {
    facts.push(trans.__('waiting for %1, since %2', time, timeOfDay(job.created_at, now)));
  }
  return facts.filter(Boolean);
}

/** `8 Succeeded, 2 Failed`, by word. */
export function countsText(phases: ReadonlyMap<string, number>, trans: TranslationBundle, nameOf = phaseName): string {
  const looks = new Map<string, number>();
  for (const [phase, count] of phases) {
    const name = nameOf(phase, trans);
    looks.set(name, (looks.get(name) ?? 0) + count);
  }
  return [...looks].sort().map(([name, count]) => trans.__('%1 %2', count, name)).join(', ');
}

/** The texts of a box whose kernel did not see the end, with the end in them: a notebook is saved and read elsewhere too. */
export interface ITexts {
  html: string;
  plain: string;
}

export function endedJobTexts(texts: ITexts, box: IBox, job: Job): ITexts {
  const why = lookOf(job.phase) !== 'succeeded' && job.reason ? `, ${job.reason}` : '';
  const time = english(elapsed(job, job.ended_at ?? box.at));
  const said = `${job.phase}${why}`;
  const head = `<b>${escaped(titleOf(box))}</b>: ${escaped(said)} <small>(${time})</small>`;
  return replaced(texts, head, new RegExp(`^job ${box.id.slice(0, SHORT_ID)}\\b.*$`, 'm'), `${titleOf(box)}: ${said} (${time})`);
}

export function endedMapTexts(texts: ITexts, phases: ReadonlyMap<string, number>): ITexts {
  const total = [...phases.values()].reduce((sum, count) => sum + count, 0);
  const counts = [...phases].sort().map(([phase, count]) => `${count} ${phase}`).join(', ');
  const said = `${total} of ${total} elements done: ${counts}`;
  return replaced(texts, `<progress max="1" value="1"></progress> ${escaped(said)}`, /^[█░]{20} .*$/m, `${'█'.repeat(20)} ${said}`);
}

function replaced(texts: ITexts, head: string, line: RegExp, plain: string): ITexts {
  const marked = `<div class="tuttilab-box-head">${head}</div>`;
  const part = /<div class="tuttilab-box-head">[^]*?<\/div>/;
  return {
    html: part.test(texts.html) ? texts.html.replace(part, () => marked) : marked + texts.html,
    plain: line.test(texts.plain) ? texts.plain.replace(line, () => plain) : `${plain}\n${texts.plain}`
  };
}

function english(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) {
    return `${whole} s`;
  }
  const two = (value: number): string => String(value).padStart(2, '0');
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${two(whole % 60)} s`
    : `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}

function escaped(value: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#x27;' };
  return value.replace(/[&<>"']/g, character => names[character]!);
}

function countOf(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  words.forEach(word => counts.set(word, (counts.get(word) ?? 0) + 1));
  return counts;
}

function phasesOf(given: unknown): Map<string, number> {
  if (typeof given !== 'object' || given === null) {
    return new Map();
  }
  return new Map(
    Object.entries(given)
      .slice(0, MOST_PHASES)
      .map(([phase, count]) => [text(phase), number(count)])
  );
}

function text(given: unknown): string {
  return typeof given === 'string' ? given.slice(0, LONGEST) : '';
}

function number(given: unknown): number {
  return typeof given === 'number' && Number.isFinite(given) ? given : 0;
}
