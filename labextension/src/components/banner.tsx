/** A line at the top of the panel while the control plane does not answer. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IModel } from '../model/tokens';
import type { IActions } from './actions';
import { useModel } from './hooks';

export function Banner(props: { model: IModel; actions: IActions; trans: TranslationBundle }): React.JSX.Element {
  const { model, actions, trans } = props;
  useModel(model, 'connection');
  const [isStarting, setStarting] = React.useState(false);
  const start = (): void => {
    setStarting(true);
    void actions.startControlPlane().finally(() => setStarting(false));
  };
  let text = '';
  if (model.connection === 'down') {
    text = trans.__('The control plane is down, retrying…');
  } else if (model.connection === 'server') {
    text = trans.__('The Jupyter server does not answer, retrying…');
  } else if (model.connection === 'connecting') {
    text = trans.__('Connecting…');
  }
  return (
    <div className={`tl-Banner tl-mod-${model.connection}`} role="status" aria-live="polite">
      {text && (
        <>
          <span className="tl-Banner-text">{text}</span>{' '}
          {model.connection === 'down' && (
            <>
              <span className="tl-Banner-detail">{model.detail}</span>{' '}
              {model.canStart && (
                <button className="jp-Button jp-mod-styled jp-mod-minimal tl-Banner-button" onClick={start} disabled={isStarting}>
                  {isStarting ? trans.__('Starting…') : trans.__('Start it')}
                </button>
              )}
            </>
          )}
        </>
      )}
    </div>
  );
}
