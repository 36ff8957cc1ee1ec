/** The body of a question about many jobs: what would happen, and to which. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';

const MOST_NAMES = 10;

export function namesBody(sentence: string, names: readonly string[], trans: TranslationBundle): ReactWidget {
  const more = names.length - MOST_NAMES;
  return ReactWidget.create(
    <div className="tl-Names">
      <p>{sentence}</p>
      <ul>
        {names.slice(0, MOST_NAMES).map((name, index) => (
          <li key={index}>
            <bdi>{name}</bdi>
          </li>
        ))}
      </ul>
      {more > 0 && <p>{trans.__('… and %1 more', more)}</p>}
    </div>
  );
}
