/** Why a job waits, or waited before it started. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Job } from '../../model/tokens';
import { duration } from '../../text/format';
import { startText } from '../../text/time';
import { keptText, overtakenText, passedText } from '../../text/waits';

/** A wait that nobody noticed needs no explanation. */
const SHORT_S = 2;

export function Waiting({ job, now, trans }: { job: Job; now: number; trans: TranslationBundle }): React.JSX.Element | null {
  const wait = job.wait;
  if (wait !== null) {
    const start = startText(wait, now, trans);
    return (
      <section className="tl-Wait tl-mod-live" aria-label={trans.__('Why it waits')}>
        <p className="tl-Wait-sentence" role="status">
          {wait.sentence}
        </p>
        <p>
          {wait.place > 0 && trans.__('Place %1 in queue %2.', wait.place, wait.queue ?? job.queue)}{' '}
          {start && trans.__('It %1, from %2.', start, wait.basis)}
          {!start && wait.basis && wait.latest === null && wait.basis}
        </p>
        {wait.held_by.length > 0 && (
          <ul className="tl-Wait-holders" aria-label={trans.__('Held by')}>
            {wait.held_by.map((holder, index) => (
              <li key={index}>{holder}</li>
            ))}
          </ul>
        )}
        {wait.kept !== null && <p className="tl-Wait-kept">{keptText(wait.kept, now, trans)}</p>}
        {wait.passed.length > 0 && (
          <>
            <p>{trans.__('Started past it:')}</p>
            <ul className="tl-Wait-passed" aria-label={trans.__('Started past it')}>
              {wait.passed.map((one, index) => (
                <li key={index}>{passedText(one, now, trans)}</li>
              ))}
            </ul>
          </>
        )}
        {wait.overtaken_s >= 1 && <p>{overtakenText(wait, trans)}</p>}
      </section>
    );
  }
  const reasons = job.attempts.filter(attempt => attempt.waited_for !== '');
  const first = job.attempts[0];
  if (reasons.length === 0 || first === undefined || first.admitted_at - job.created_at < SHORT_S) {
    return null;
  }
  return (
    <section className="tl-Wait" aria-label={trans.__('Why it waited')}>
      <p>{trans.__('It waited %1 before it started, at last for this:', duration(first.admitted_at - job.created_at, trans))}</p>
      {reasons.map(attempt => (
        <p key={attempt.number} className="tl-Wait-sentence">
          {reasons.length > 1 && trans.__('attempt %1', attempt.number)} {attempt.waited_for}
        </p>
      ))}
    </section>
  );
}
