/** DAG runs, newest first: how far each is, and a click to its graph. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { closeIcon, refreshIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IModel, Run } from '../model/tokens';
import { duration, lookName, lookOf, runElapsed } from '../text/format';
import type { IActions } from './actions';
import { useModel, useNow } from './hooks';
import { IconButton } from './iconButton';
import { PhaseIcon } from './phase';

interface IProps {
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
}

export function Runs({ model, actions, trans }: IProps): React.JSX.Element {
  useModel(model, 'runs', 'connection');
  const now = useNow(model.runs.some(run => !run.is_ended));
  if (model.runs.length === 0) {
    const text = model.connection === 'up' ? trans.__('No DAG has run yet. %1 runs one.', '%dag run FILE') : '';
    return <div className="tl-Empty">{text}</div>;
  }
  return (
    <ul className="tl-Runs" aria-label={trans.__('DAG runs, newest first')}>
      {model.runs.map(run => (
        <RunRow key={run.id} run={run} now={now} actions={actions} trans={trans} />
      ))}
    </ul>
  );
}

function RunRow(props: { run: Run; now: number; actions: IActions; trans: TranslationBundle }): React.JSX.Element {
  const { run, now, actions, trans } = props;
  const look = lookOf(run.phase);
  const done = run.nodes.filter(node => lookOf(node.phase) === 'succeeded').length;
  return (
    <li className={`tl-Run tl-mod-${look}`} data-run-id={run.id}>
      <button
        type="button"
        className="tl-Run-main"
        title={trans.__('Show the graph of %1', run.name)}
        onClick={() => actions.openRun(run.id)}
      >
        <PhaseIcon phase={run.phase} trans={trans} />
        <span className="tl-Job-lines">
          <span className="tl-Job-first">
            <bdi className="tl-Job-name">{run.name}</bdi> <span className="tl-Job-time">{duration(runElapsed(run, now), trans)}</span>{' '}
          </span>
          <span className="tl-Job-second">
            <span className="tl-Job-phase">{lookName(look, trans)}</span>{' '}
            <span className="tl-Job-detail">{trans.__('%1 of %2 nodes done', done, run.nodes.length)}</span>
          </span>
          <span className="tl-Run-nodes" aria-hidden="true">
            {run.nodes.slice(0, 60).map(node => (
              <span key={node.name} className={`tl-Run-node tl-mod-${lookOf(node.phase)}`} title={node.name} />
            ))}
          </span>
        </span>
      </button>
      <div className="tl-Job-buttons">
        {run.is_ended ? (
          look !== 'succeeded' && (
            <IconButton
              icon={refreshIcon}
              label={trans.__('Go on with run %1', run.name)}
              onClick={() => void actions.retryRun(run.id)}
            />
          )
        ) : (
          <IconButton icon={closeIcon} label={trans.__('Cancel run %1', run.name)} onClick={() => void actions.cancelRun(run.id)} />
        )}
      </div>
    </li>
  );
}
