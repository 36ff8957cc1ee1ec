import { describe, expect, it } from 'vitest';

import { compare, csvOf, hasText, parseFacts, type Kind, type Value } from '../src/tables/facts';

function sorted(values: Value[], kind: Kind, sign: 1 | -1): Value[] {
  return [...values].sort((a, b) => compare(a, b, kind, sign));
}

describe('a table of results', () => {
  it.each<[Kind, 1 | -1, Value[], Value[]]>([
    ['number', 1, ['10', '9', null, '-1'], ['-1', '9', '10', null]],
    ['number', -1, ['10', 'nan', '9', null, '-1'], ['10', '9', '-1', 'nan', null]],
    ['number', 1, ['9007199254740993', '9007199254740992'], ['9007199254740992', '9007199254740993']],
    ['number', -1, ['1e+20', 'inf', '-inf', '0.5'], ['inf', '1e+20', '0.5', '-inf']],
    ['text', 1, ['b', null, '10', 'a', '9'], ['10', '9', 'a', 'b', null]]
  ])('orders %s in direction %i', (kind, sign, values, wanted) => {
    expect(sorted(values, kind, sign)).toEqual(wanted);
  });

  it('finds a text in any column, in whatever case', () => {
    expect([hasText(['Apple', null], 'app'), hasText(['Apple', null], 'null'), hasText(['Apple'], 'x'), hasText([], '')]).toEqual([true, true, false, true]);
  });

  it('is CSV that says what is NULL and what is empty', () => {
    expect(csvOf([['a', 'b c'], ['1', null], ['', 'x,"y"\nz']])).toBe('a,b c\r\n1,\r\n"","x,""y""\nz"\r\n');
  });

  it('says nothing in another version or shape', () => {
    const facts = { version: 1, columns: ['number', 'strange'], is_whole: true, cut: 2 };
    expect(parseFacts(facts)).toEqual({ columns: ['number', 'text'], isWhole: true, cut: 2 });
    expect([parseFacts({ ...facts, version: 2 }), parseFacts({ ...facts, columns: 'x' }), parseFacts(null), parseFacts('x')]).toEqual([null, null, null, null]);
  });
});
