/** A phase as an icon that differs in shape as well as in colour. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { lookName, lookOf, type Look } from '../text/format';

const SHAPES: Record<Look, React.ReactNode> = {
  waiting: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" />
      <path d="M8 4.5V8l2.5 1.7" fill="none" />
    </>
  ),
  starting: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" strokeDasharray="2.6 2.1" />
      <circle cx="8" cy="8" r="2" className="tl-Phase-solid" />
    </>
  ),
  running: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" className="tl-Phase-track" />
      <path d="M8 2a6 6 0 0 1 6 6" fill="none" className="tl-Phase-arc" />
      <path d="M6.4 5.2 11 8l-4.600 2.800Z" className="tl-Phase-solid" />
    </>
  ),
  stopping: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" strokeDasharray="2.6 2.1" />
      <rect x="5.700" y="5.700" width="4.600" height="4.600" className="tl-Phase-solid" />
    </>
  ),
  succeeded: (
    <>
      <circle cx="8" cy="8" r="6.500" className="tl-Phase-disc" />
      <path d="m5 8.200 2.200 2.200L11.200 6" fill="none" className="tl-Phase-mark" />
    </>
  ),
  failed: (
    <>
      <circle cx="8" cy="8" r="6.500" className="tl-Phase-disc" />
      <path d="m5.600 5.600 4.800 4.800m0-4.800-4.800 4.800" fill="none" className="tl-Phase-mark" />
    </>
  ),
  cancelled: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" />
      <path d="M5 8h6" fill="none" />
    </>
  ),
  skipped: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" strokeDasharray="1.500 2.300" />
      <path d="m6 5.500 2.500 2.500L6 10.500m3.500-5v5" fill="none" />
    </>
  )
};

/** Hidden from screen readers beside the phase's name; `isAlone` gives it a label. */
export function PhaseIcon(props: { phase: string; trans: TranslationBundle; isAlone?: boolean }): React.JSX.Element {
  const look = lookOf(props.phase);
  const label = props.isAlone ? { role: 'img', 'aria-label': lookName(look, props.trans) } : { 'aria-hidden': true };
  return (
    <svg className={`tl-Phase tl-mod-${look}`} viewBox="0 0 16 16" width="16" height="16" {...label}>
      {SHAPES[look]}
    </svg>
  );
}
