import { describe, expect, it } from 'vitest';

import { type IKeptView, MOST_GROUPS, parseView, savedView } from '../src/components/jobs/keptView';

const VIEW: IKeptView = {
  text: 'sweep',
  states: new Set(['failed', 'running'] as const),
  order: 'name',
  isGrouped: false,
  opened: new Map([
    ['map:0a1b', true],
    ['notebook:a/x.ipynb', false]
  ])
};
const SAVED = { text: '', states: ['failed'], order: 'state', isGrouped: true, opened: [] };
const again = (view: IKeptView): IKeptView | null => parseView(JSON.parse(JSON.stringify(savedView(view))));

describe('the list as it was left', () => {
  it('comes back from what was saved', () => {
    expect(again(VIEW)).toEqual({ ...VIEW, states: new Set(['running', 'failed']) });
  });

  it('has the groups that were opened or closed last, when there were many', () => {
    const all = Array.from({ length: MOST_GROUPS + 2 }, (_, index): [string, boolean] => [`map:${index}`, true]);
    expect([...again({ ...VIEW, opened: new Map(all) })!.opened]).toEqual(all.slice(2));
  });

  it('drops states that there are no more', () => {
    expect(parseView({ ...SAVED, states: ['failed', 'lost'] })?.states).toEqual(new Set(['failed']));
  });

  it.each([
    undefined,
    null,
    'x',
    [],
    { states: ['failed'] },
    { ...SAVED, states: 'failed' },
    { ...SAVED, order: 'best' },
    { ...SAVED, text: 7 },
    { ...SAVED, opened: { 'map:0a1b': true } },
    { ...SAVED, opened: [['map:0a1b', 'yes']] },
    { ...SAVED, opened: ['map:0a1b'] }
  ])('is the first one where %j was saved', saved => {
    expect(parseView(saved)).toBeNull();
  });
});
