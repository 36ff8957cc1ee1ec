import { describe, expect, it } from 'vitest';

import { hasSql, isSqlCell, sqlRanges, startOfSql } from '../src/editors/sqlPlaces';

describe('a cell of Spark SQL', () => {
  it.each([
    ['%%sparksql\nSELECT 1', 'SELECT 1'],
    ['%%sparksql df --limit 5\nSELECT 1', 'SELECT 1'],
    ['\n  \n%%sparksql\nSELECT 1', 'SELECT 1'],
    ['%%spark --lang sql\nSELECT 1', 'SELECT 1'],
    ['%%spark df --lang=sql --limit 3\nSELECT 1', 'SELECT 1'],
    ['%%sparksql', '']
  ])('is known by its first line: %j', (source, sql) => {
    expect(isSqlCell(source)).toBe(true);
    expect(source.slice(startOfSql(source))).toBe(sql);
  });

  it.each([
    'SELECT 1',
    '# %%sparksql\nSELECT 1',
    'x = 1\n%%sparksql\nSELECT 1',
    '%sparksql SELECT 1',
    '%%sparksqlx\nSELECT 1',
    '%%sparksql?',
    '%%spark\nspark.sql("--lang sql")',
    '%%spark --lang python\nx',
    '%%spark --lang sqlx\nx'
  ])('is nothing else: %j', source => {
    expect(isSqlCell(source)).toBe(false);
  });
});

describe('SQL of a cell', () => {
  it.each([
    ['%%sparksql\nSELECT 1', ['SELECT 1']],
    ['%%sparksql', []],
    ['x = 1\n%sparksql SELECT 1\ndf = %sparksql --as arrow SELECT 2', ['SELECT 1\n', 'SELECT 2']],
    ['%sparksql --save "a b.csv" --overwrite SELECT 1', ['SELECT 1']],
    ['%sparksql --explain', []],
    ['x = 1', []]
  ])('is found: %j', (cell, sql) => {
    expect(sqlRanges(cell, cell.length).map(({ from, to }) => cell.slice(from, to))).toEqual(sql);
    expect(hasSql(cell)).toBe(sql.length > 0 || cell.startsWith('%%'));
  });

  it('is known with the place of its magic', () => {
    expect(sqlRanges('df = %sparksql SELECT 2', 23)).toEqual([{ magic: 5, from: 15, to: 23 }]);
  });
});
