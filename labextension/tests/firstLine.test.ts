import { describe, expect, it } from 'vitest';

import { isSqlCell, startOfSql } from '../src/editors/firstLine';

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
