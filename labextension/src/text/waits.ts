/** What is held for a job that waits, and who was started past it. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Wait } from '../model/tokens';
import { duration } from './format';
import { timeOfDay } from './time';

type Kept = NonNullable<Wait['kept']>;
type Passed = Wait['passed'][number];

export function keptText(kept: Kept, now: number, trans: TranslationBundle): string {
  const start = kept.start <= now ? trans.__('now') : timeOfDay(kept.start, now);
  if (kept.nodes.length === 0) {
    return trans.__('Room on cluster %1 is kept for it from %2 on, when others have left it.', kept.cluster, start);
  }
  return trans.__('Kept for it: %1 on cluster %2, from %3 on.', kept.nodes.join(', '), kept.cluster, start);
}

export function passedText(passed: Passed, now: number, trans: TranslationBundle): string {
  const at = timeOfDay(passed.started_at, now);
  const text = trans.__('%1 at %2 on %3: %4', passed.job, at, passed.nodes.join(', '), passed.promise);
  const isLate = passed.must_end && (passed.ended_at ?? now) > passed.kept_start;
  return isLate ? trans.__('%1, and was too late', text) : text;
}

export function overtakenText(wait: Wait, trans: TranslationBundle): string {
  const used = duration(wait.overtaken_s, trans);
  return wait.is_protected
    ? trans.__('Jobs submitted later used as much as all of the site for %1; so it goes before them now.', used)
    : trans.__(
        'Jobs submitted later used as much as all of the site for %1; it goes before them from %2 on.',
        used,
        duration(wait.allowed_s, trans)
      );
}
