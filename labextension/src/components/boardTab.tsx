/** TensorBoard on a job's results in a tab: started when the tab is looked at, also one that came back with Lab. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { messageOf } from '../model/client';
import type { IModel } from '../model/tokens';
import { useIsShown, useJob, useModel } from './hooks';

interface IProps {
  id: string;
  model: IModel;
  trans: TranslationBundle;
  /** The job's name is known. */
  onName: (name: string) => void;
}

export function BoardTab({ id, model, trans, onName }: IProps): React.JSX.Element {
  useModel(model, 'connection');
  const root = React.useRef<HTMLDivElement>(null);
  const isShown = useIsShown(root, false);
  const { job, isGone } = useJob(model, id);
  const [wasShown, setWasShown] = React.useState(false);
  const [{ path, note }, setBoard] = React.useState({ path: '', note: '' });
  const [problem, setProblem] = React.useState('');
  const title = trans.__('TensorBoard of %1', job?.name ?? id);
  const isNamed = job !== undefined;
  const isUp = model.connection === 'up';
  React.useEffect(() => {
    if (isNamed) {
      onName(title);
    }
  }, [isNamed, title, onName]);
  React.useEffect(() => {
    if (isShown) {
      setWasShown(true);
    }
  }, [isShown]);
  const open = React.useCallback(() => {
    setProblem('');
    model.openBoard(id).then(setBoard, (error: unknown) => setProblem(messageOf(error)));
  }, [model, id]);
  const isWanted = wasShown && path === '';
  React.useEffect(() => {
    if (isWanted && isUp) {
      open();
    }
  }, [isWanted, isUp, open]);
  return (
    // Lab's class keeps the mouse while a border between tabs is dragged over the frame.
    <div ref={root} className="tl-Board jp-IFrame">
      {path !== '' ? (
        <>
          {note !== '' && (
            <p role="status" className="tl-Board-note">
              {note}
            </p>
          )}
          <iframe src={path} title={title} sandbox="allow-scripts allow-same-origin allow-downloads" />
        </>
      ) : (
        <div className="tl-Empty">
          <p role="status">
            {isGone ? trans.__('The job was deleted, and its results with it.') : problem || trans.__('Starting TensorBoard…')}
          </p>
          {problem !== '' && !isGone && (
            <button type="button" className="jp-Button jp-mod-styled jp-mod-minimal" onClick={open}>
              {trans.__('Try again')}
            </button>
          )}
        </div>
      )}
    </div>
  );
}
