/** Above the list: a text, chips by state with their counts, the order. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { HTMLSelect } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IModel } from '../../model/tokens';
import { lookName } from '../../text/format';
import { useModel } from '../hooks';
import { PhaseIcon } from '../phase';
import { countStates, ENDED, type IView, type Order, ORDERS, type State, STATES } from './rows';

const TYPING_PAUSE_MS = 250;

interface IProps {
  model: IModel;
  trans: TranslationBundle;
  view: IView;
  setView: (change: Partial<IView>) => void;
}

export function Filter({ model, trans, view, setView }: IProps): React.JSX.Element {
  useModel(model, 'jobs');
  const counts = countStates(model.jobs);
  const toggle = (state: State): void => {
    const states = new Set(view.states);
    if (!states.delete(state)) {
      states.add(state);
      if (ENDED.has(state)) {
        model.setFilter({ ended: true });
      }
    }
    setView({ states });
  };
  return (
    <div className="tl-Filter">
      <div className="tl-Filter-line tl-mod-first">
        <Search model={model} trans={trans} />
        <label className="tl-Filter-ended">
          <input type="checkbox" checked={model.filter.ended} onChange={event => model.setFilter({ ended: event.target.checked })} />
          {trans.__('Ended')}
        </label>
        <button
          type="button"
          className="tl-Chip tl-Filter-grouped"
          aria-pressed={view.isGrouped}
          title={trans.__('Jobs of one map, DAG run or notebook in one row')}
          onClick={() => setView({ isGrouped: !view.isGrouped })}
        >
          {trans.__('Grouped')}
        </button>
      </div>
      <div className="tl-Filter-line">
        <div className="tl-Filter-states" role="group" aria-label={trans.__('Show only')}>
          {STATES.map(state => (
            <Chip
              key={state}
              state={state}
              count={model.hasMore ? `${counts[state]}+` : String(counts[state])}
              isPressed={view.states.has(state)}
              onClick={() => toggle(state)}
              trans={trans}
            />
          ))}
        </div>
        <HTMLSelect
          className="tl-Filter-order"
          aria-label={trans.__('Order')}
          value={view.order}
          onChange={event => setView({ order: event.target.value as Order })}
        >
          {ORDERS.map(order => (
            <option key={order} value={order}>
              {orderName(order, trans)}
            </option>
          ))}
        </HTMLSelect>
      </div>
    </div>
  );
}

interface IChipProps {
  state: State;
  count: string;
  isPressed: boolean;
  onClick: () => void;
  trans: TranslationBundle;
}

function Chip({ state, count, isPressed, onClick, trans }: IChipProps): React.JSX.Element {
  const name = lookName(state, trans);
  return (
    <button type="button" className="tl-Chip" aria-pressed={isPressed} aria-label={`${name} ${count}`} title={`${name}: ${count}`} onClick={onClick}>
      <PhaseIcon phase={PHASES[state]} trans={trans} />
      {count}
    </button>
  );
}

/** A phase whose icon stands for the state. */
const PHASES: Record<State, string> = {
  running: 'Running',
  waiting: 'Queued',
  succeeded: 'Succeeded',
  failed: 'Failed',
  cancelled: 'Cancelled'
};

function Search({ model, trans }: { model: IModel; trans: TranslationBundle }): React.JSX.Element {
  const [text, setText] = React.useState(model.filter.text);
  // Others set it too: a cell's box shows the jobs of its map.
  React.useEffect(() => setText(model.filter.text), [model.filter.text]);
  React.useEffect(() => {
    const timer = setTimeout(() => model.setFilter({ text: text.trim() }), TYPING_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [model, text]);
  return (
    <input
      type="search"
      className="jp-mod-styled tl-Filter-text"
      placeholder={trans.__('Filter by name')}
      aria-label={trans.__('Filter jobs by name')}
      dir="auto"
      value={text}
      onChange={event => setText(event.target.value)}
    />
  );
}

function orderName(order: Order, trans: TranslationBundle): string {
  switch (order) {
    case 'state':
      return trans.__('Running first');
    case 'newest':
      return trans.__('Newest first');
    case 'longest':
      return trans.__('Longest first');
    case 'name':
      return trans.__('By name');
  }
}
