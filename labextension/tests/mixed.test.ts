import { pythonLanguage } from '@codemirror/lang-python';
import { highlightTree, tagHighlighter, tags } from '@lezer/highlight';
import { describe, expect, it } from 'vitest';

import { mixedOf } from '../src/editors/mixed';

const mixed = mixedOf(pythonLanguage);
const colours = tagHighlighter([
  { tag: tags.keyword, class: 'keyword' },
  { tag: tags.string, class: 'string' },
  { tag: tags.comment, class: 'comment' },
  { tag: tags.special(tags.variableName), class: 'variable' }
]);

/** The pieces of a cell that have a colour. */
function coloured(cell: string, colour: string): string[] {
  const found: string[] = [];
  highlightTree(mixed.parser.parse(cell), colours, (from, to, classes) => {
    if (classes === colour) {
      found.push(cell.slice(from, to));
    }
  });
  return found;
}

describe('variables of the notebook in SQL', () => {
  it.each([
    ['%%sparksql\nSELECT * FROM :df WHERE n > :least_1 AND s = :s', [':df', ':least_1', ':s']],
    ['%%sparksql df\nSELECT a FROM t WHERE a IN (:ids)\n-- :none\n', [':ids']],
    ['%sparksql SELECT :n', [':n']],
    ['%%spark --lang sql\nSELECT :n + :m;\nSELECT :k', [':n', ':m', ':k']]
  ])('have a colour of their own: %j', (cell, names) => {
    expect(coloured(cell, 'variable')).toEqual(names);
  });

  it.each([
    "%%sparksql\nSELECT ':n', \":n\", `:n` FROM t -- :n",
    '%%sparksql\nSELECT n::int, v:field, f(1):field, v["a"]:field, `v`:field',
    '%%sparksql\nSELECT :1, : n, :"n"',
    'x = {a:b}\ny[1:n]'
  ])('are nothing else with a colon: %j', cell => {
    expect(coloured(cell, 'variable')).toEqual([]);
  });
});

describe('SQL in one line', () => {
  it.each([
    ['%sparksql SELECT a FROM t', ['SELECT', 'FROM']],
    ['df = %sparksql SELECT a FROM t\nif df is None:\n    pass', ['SELECT', 'FROM', 'if', 'is', 'None', 'pass']],
    ['  %sparksql --view v --limit=5 --quiet SELECT lambda FROM t', ['SELECT', 'FROM']],
    ['%sparksql SELECT a \\\n  FROM t\nimport x', ['SELECT', 'FROM', 'import']],
    ["%sparksql SELECT 'it''s'\n%sparksql SELECT b\nx = 1", ['SELECT', 'SELECT']],
    ['%sparksql\tshow tables', ['show', 'tables']],
    ['%%time\na.b, c[0] = %sparksql select 1', ['select']]
  ])('has the colours of SQL and the rest those of Python: %j', (cell, keywords) => {
    expect(coloured(cell, 'keyword')).toEqual(keywords);
  });

  it('ends with its line', () => {
    expect(coloured('%sparksql SELECT a -- from\nfrom x import y  # no', 'comment')).toEqual(['-- from', '# no']);
    expect(coloured('%sparksql SELECT a\nfrom x import y', 'keyword')).toEqual(['SELECT', 'from', 'import']);
  });

  it.each([
    'text = """\n%sparksql SELECT a FROM t\n"""',
    '# %sparksql SELECT a FROM t',
    'x = "%sparksql SELECT a FROM t"',
    '%sparksqlx SELECT a',
    '%sparksql',
    '%sparksql --explain'
  ])('is nothing else: %j', cell => {
    expect(coloured(cell, 'keyword').filter(word => /[A-Z]/.test(word))).toEqual([]);
  });

  it('is found in a long cell up to where a cell is looked at', () => {
    const cell = `${'x = 1  # some line of Python\n'.repeat(1000)}%sparksql SELECT a`;
    expect(coloured(cell, 'keyword')).toEqual(['SELECT']);
    const late = `${'x = 1  # some line of Python\n'.repeat(2000)}%sparksql SELECT a`;
    expect(coloured(late, 'keyword')).toEqual([]);
  });
});
