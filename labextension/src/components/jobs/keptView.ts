/** The list as it was left, over a reload: its text, chips, order, grouping, and which groups are open. */

import type { IStateDB } from '@jupyterlab/statedb';
import type { ReadonlyPartialJSONValue } from '@lumino/coreutils';

import { type IView, ORDERS, STATES } from './rows';

const KEY = 'tuttilab:jobs';
/** Groups of which it is kept whether they are open: those that were opened or closed last. */
export const MOST_GROUPS = 200;

export const FIRST_VIEW: IView = { states: new Set(), order: 'state', isGrouped: true, opened: new Map() };

/** `text`: what the model's filter has. */
export interface IKeptView extends IView {
  text: string;
}

/** Null: nothing was kept, or something else than this. */
export function parseView(saved: unknown): IKeptView | null {
  if (typeof saved !== 'object' || saved === null) {
    return null;
  }
  const { text, states, order, isGrouped, opened } = saved as Record<string, unknown>;
  const found = ORDERS.find(each => each === order);
  if (typeof text !== 'string' || !Array.isArray(states) || found === undefined || typeof isGrouped !== 'boolean' || !isOpened(opened)) {
    return null;
  }
  return { text, states: new Set(STATES.filter(state => states.includes(state))), order: found, isGrouped, opened: new Map(opened) };
}

function isOpened(saved: unknown): saved is [string, boolean][] {
  return (
    Array.isArray(saved) &&
    saved.every(pair => Array.isArray(pair) && pair.length === 2 && typeof pair[0] === 'string' && typeof pair[1] === 'boolean')
  );
}

export function savedView(view: IKeptView): ReadonlyPartialJSONValue {
  const { text, order, isGrouped } = view;
  return { text, states: [...view.states], order, isGrouped, opened: [...view.opened].slice(-MOST_GROUPS) };
}

/** Where the view is kept. */
export interface IViewStore {
  /** Once the user's settings are applied, which a kept view goes before. */
  fetch(): Promise<IKeptView | null>;
  save(view: IKeptView): void;
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
