/** One bar for each queue and resource: used, guaranteed and max. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Cluster, IModel, Queue, Use } from '../model/tokens';
import { amountOf, barOf, resourceName } from '../text/format';
import { useModel } from './hooks';

export function Quota({ model, trans }: { model: IModel; trans: TranslationBundle }): React.JSX.Element {
  useModel(model, 'quota', 'connection');
  if (model.queues.length === 0) {
    return <div className="tl-Empty">{model.connection === 'up' ? trans.__('No queue is open to you.') : ''}</div>;
  }
  const capacity = totals(model.clusters);
  return (
    <ul className="tl-Quota" aria-label={trans.__('Queues and their quota')}>
      {inTreeOrder(model.queues).map(({ queue, depth }) => (
        <li key={queue.name} className="tl-Queue" style={{ paddingLeft: 8 + depth * 12 }}>
          <div className="tl-Queue-head">
            <span className="tl-Queue-name">{queue.name}</span>{' '}
            <span className="tl-Queue-counts">
              {trans.__('%1 running', queue.running)}{' '}
              {queue.waiting > 0 && <span className="tl-Queue-waiting">{trans.__('%1 waiting', queue.waiting)}</span>}
            </span>
          </div>
          {queue.use.length === 0 && <div className="tl-Queue-idle">{trans.__('nothing used, no limit')}</div>}
          {queue.use.map(use => (
            <Bar key={use.resource} use={use} capacity={capacity.get(use.resource) ?? 0} queue={queue} trans={trans} />
          ))}
        </li>
      ))}
    </ul>
  );
}

function Bar(props: { use: Use; capacity: number; queue: Queue; trans: TranslationBundle }): React.JSX.Element {
  const { use, trans } = props;
  const bar = barOf(use, props.capacity);
  const name = resourceName(use.resource, trans);
  const text = use.max_text ? trans.__('%1 of %2', use.used_text, use.max_text) : trans.__('%1, no limit', use.used_text);
  const guaranteed = use.guaranteed > 0 ? trans.__('guaranteed %1', use.guaranteed_text) : '';
  const whole = guaranteed ? `${text}, ${guaranteed}` : text;
  return (
    <div className="tl-Use" title={`${name}: ${whole}`}>
      <span className="tl-Use-name">{name}</span>{' '}
      <div
        className={`tl-Bar${bar.isOver ? ' tl-mod-over' : ''}${use.max !== null && use.used >= use.max ? ' tl-mod-full' : ''}`}
        role="meter"
        aria-label={trans.__('%1 in queue %2', name, props.queue.name)}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(bar.used)}
        aria-valuetext={whole}
      >
        <div className="tl-Bar-used" style={{ width: `${bar.used}%` }} />
        {use.guaranteed > 0 && <div className="tl-Bar-guaranteed" style={{ left: `${bar.guaranteed}%` }} />}
      </div>
      <span className="tl-Use-text">{use.max_text ? `${use.used_text} / ${use.max_text}` : use.used_text}</span>
    </div>
  );
}

/** Parents before children, with their depth in the tree. */
export function inTreeOrder(queues: readonly Queue[]): { queue: Queue; depth: number }[] {
  const names = new Set(queues.map(queue => queue.name));
  const found: { queue: Queue; depth: number }[] = [];
  const visit = (parent: string | null, depth: number): void => {
    for (const queue of queues) {
      const above = queue.parent !== null && names.has(queue.parent) ? queue.parent : null;
      if (above === parent && !found.some(other => other.queue === queue)) {
        found.push({ queue, depth });
        visit(queue.name, depth + 1);
      }
    }
  };
  visit(null, 0);
  return found;
}

function totals(clusters: readonly Cluster[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const cluster of clusters) {
    for (const [resource, text] of Object.entries(cluster.allocatable)) {
      sums.set(resource, (sums.get(resource) ?? 0) + amountOf(resource, text));
    }
  }
  return sums;
}
