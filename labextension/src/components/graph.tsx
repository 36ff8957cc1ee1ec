/** A run's graph in a tab: SVG over dagre's layout; each node is a button that opens its job's log. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ToolbarButtonComponent, closeIcon, refreshIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { messageOf } from '../model/client';
import type { IModel, Run, RunNode } from '../model/tokens';
import { duration, lookName, lookOf, runElapsed } from '../text/format';
import type { IActions } from './actions';
import { type IPlacedNode, layOut, NODE_HEIGHT, NODE_WIDTH } from './graphLayout';
import { useModel, useNow } from './hooks';
import { PhaseIcon } from './phase';

interface IProps {
  id: string;
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
  /** The run's name is known. */
  onName: (name: string) => void;
}

export function Graph({ id, model, actions, trans, onName }: IProps): React.JSX.Element {
  useModel(model, 'runs');
  const run = model.run(id);
  const name = run?.name;
  React.useEffect(() => {
    if (name !== undefined) {
      onName(name);
    }
  }, [name]);
  const [problem, setProblem] = React.useState('');
  React.useEffect(() => {
    if (run === undefined) {
      model.fetchRun(id).then(
        () => setProblem(''),
        (error: unknown) => setProblem(messageOf(error))
      );
    }
  }, [model, id, run === undefined]);
  if (run === undefined) {
    return (
      <div className="tl-Empty" role="status">
        {problem || trans.__('Loading…')}
      </div>
    );
  }
  return <RunGraph run={run} actions={actions} trans={trans} />;
}

function RunGraph({ run, actions, trans }: { run: Run; actions: IActions; trans: TranslationBundle }): React.JSX.Element {
  const now = useNow(!run.is_ended);
  // Phases change often, the graph's shape never: the layout is computed once per shape.
  const shape = run.nodes.map(node => [node.name, ...node.after].join('\n')).join('\n\n');
  const layout = React.useMemo(() => layOut(run.nodes), [run.id, shape]);
  const nodes = new Map(run.nodes.map(node => [node.name, node]));
  const look = lookOf(run.phase);
  return (
    <div className="tl-Graph">
      <div className="tl-TabHead">
        <PhaseIcon phase={run.phase} trans={trans} />
        <bdi className="tl-TabHead-name">{run.name}</bdi>{' '}
        <span className="tl-TabHead-detail" role="status">
          {lookName(look, trans)} · {duration(runElapsed(run, now), trans)}
        </span>
        <span className="tl-TabHead-space" />
        {!run.is_ended && (
          <ToolbarButtonComponent icon={closeIcon} label={trans.__('Cancel run')} onClick={() => void actions.cancelRun(run.id)} />
        )}
        {run.is_ended && look !== 'succeeded' && (
          <ToolbarButtonComponent icon={refreshIcon} label={trans.__('Go on')} onClick={() => void actions.retryRun(run.id)} />
        )}
      </div>
      <div className="tl-Graph-scroll" tabIndex={0} role="region" aria-label={trans.__('Graph of %1', run.name)}>
        <svg width={layout.width} height={layout.height} viewBox={`0 0 ${layout.width} ${layout.height}`}>
          <defs>
            <marker id="tl-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
              <path d="M0 0.500 7 4 0 7.500Z" className="tl-Graph-arrow" />
            </marker>
          </defs>
          {layout.lines.map(line => (
            <path
              key={`${line.from}\n${line.to}`}
              d={line.path}
              className={`tl-Graph-line tl-mod-${lookOf(nodes.get(line.from)!.phase)}`}
              markerEnd="url(#tl-arrow)"
            />
          ))}
          {layout.nodes.map(placed => (
            <Node key={placed.node.name} placed={placed} node={nodes.get(placed.node.name)!} now={now} actions={actions} trans={trans} />
          ))}
        </svg>
      </div>
    </div>
  );
}

function Node(props: {
  placed: IPlacedNode;
  node: RunNode;
  now: number;
  actions: IActions;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { placed, node, now, actions, trans } = props;
  const look = lookOf(node.phase);
  const jobId = node.job_id;
  const open = (): void => {
    if (jobId !== null) {
      actions.openLogs(jobId);
    }
  };
  const time = node.started_at === null ? '' : duration((node.ended_at ?? now) - node.started_at, trans);
  const state = [lookName(look, trans), time].filter(Boolean).join(' · ');
  const parents = node.after.length > 0 ? trans.__('after %1', node.after.join(', ')) : '';
  const label = [node.name, state, parents, node.reason].filter(Boolean).join(', ');
  return (
    <foreignObject x={placed.x} y={placed.y} width={NODE_WIDTH} height={NODE_HEIGHT}>
      <button
        type="button"
        className={`tl-Node tl-mod-${look}`}
        aria-label={label}
        title={[node.name, state, node.reason].filter(Boolean).join('\n')}
        aria-disabled={jobId === null}
        onClick={open}
        data-node={node.name}
      >
        <PhaseIcon phase={node.phase} trans={trans} />
        <span className="tl-Node-lines">
          <span className="tl-Node-name">{node.name}</span>
          <span className="tl-Node-state">{state}</span>
        </span>
      </button>
    </foreignObject>
  );
}

