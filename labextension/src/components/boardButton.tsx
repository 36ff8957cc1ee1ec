/** The way to TensorBoard, where the job wrote something for it. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ToolbarButtonComponent } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IModel, Job } from '../model/tokens';
import type { IActions } from './actions';

/** While the job runs it may still write its first one. */
const AGAIN_MS = 10_000;

interface IProps {
  job: Job;
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
}

export function BoardButton({ job, model, actions, trans }: IProps): React.JSX.Element | null {
  const [isOffered, setOffered] = React.useState(false);
  const hasStarted = job.attempts.length > 0;
  React.useEffect(() => {
    if (!hasStarted || isOffered) {
      return undefined;
    }
    // No answer is no offer: it is asked again, or the service says elsewhere what is wrong.
    const ask = (): void => {
      if (document.visibilityState === 'visible') {
        model.hasBoard(job.id).then(setOffered, () => undefined);
      }
    };
    ask();
    if (job.is_ended) {
      return undefined;
    }
    const timer = setInterval(ask, AGAIN_MS);
    return () => clearInterval(timer);
  }, [model, job.id, job.is_ended, hasStarted, isOffered]);
  return isOffered ? (
    <ToolbarButtonComponent
      label={trans.__('TensorBoard')}
      tooltip={trans.__('Open TensorBoard on the results')}
      onClick={() => actions.openBoard(job.id)}
    />
  ) : null;
}
