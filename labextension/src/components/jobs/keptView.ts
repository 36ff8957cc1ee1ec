/** Chips, order and grouping of the list as they were left, over a reload. */

import type { IStateDB } from '@jupyterlab/statedb';
import type { ReadonlyPartialJSONValue } from '@lumino/coreutils';

import { type IView, ORDERS, STATES } from './rows';

const KEY = 'tuttilab:jobs';

export const FIRST_VIEW: IView = { states: new Set(), order: 'state', isGrouped: true, opened: new Map() };

export type KeptView = Pick<IView, 'states' | 'order' | 'isGrouped'>;

/** Null: nothing was kept, or something else than this. */
export function parseView(saved: unknown): KeptView | null {
  if (typeof saved !== 'object' || saved === null) {
    return null;
  }
  const { states, order, isGrouped } = saved as Record<string, unknown>;
  const found = ORDERS.find(each => each === order);
  if (!Array.isArray(states) || found === undefined || typeof isGrouped !== 'boolean') {
    return null;
  }
  return { states: new Set(STATES.filter(state => states.includes(state))), order: found, isGrouped };
}

export function savedView(view: KeptView): ReadonlyPartialJSONValue {
  return { states: [...view.states], order: view.order, isGrouped: view.isGrouped };
}

/** Where the view is kept. */
export interface IViewStore {
  /** Once the user's settings are applied, which a kept view goes before. */
  fetch(): Promise<KeptView | null>;
  save(view: KeptView): void;
}

export function viewStore(state: IStateDB, settingsApplied: Promise<void>): IViewStore {
  return {
    fetch: async () => {
      await settingsApplied;
      return parseView(await state.fetch(KEY));
    },
    save: view => void state.save(KEY, savedView(view))
  };
}
