import { describe, expect, it } from 'vitest';

import { parseView, savedView } from '../src/components/jobs/keptView';

describe('the list as it was left', () => {
  it('comes back from what was saved', () => {
    const view = { states: new Set(['failed', 'running'] as const), order: 'name', isGrouped: false } as const;
    const again = parseView(JSON.parse(JSON.stringify(savedView(view))));
    expect(again).toEqual({ states: new Set(['running', 'failed']), order: 'name', isGrouped: false });
  });

  it('drops states that there are no more', () => {
    expect(parseView({ states: ['failed', 'lost'], order: 'state', isGrouped: true })?.states).toEqual(new Set(['failed']));
  });

  it.each([undefined, null, 'x', [], { states: ['failed'] }, { states: 'failed', order: 'state', isGrouped: true }, { states: [], order: 'best', isGrouped: true }])(
    'is the first one where %j was saved',
    saved => {
      expect(parseView(saved)).toBeNull();
    }
  );
});
