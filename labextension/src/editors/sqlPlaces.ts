/** Where a cell has Spark SQL: below a first line that says so, or after the magic in one line. Nothing of the editor. */

/** Characters of a cell that are looked at, for its first line and for lines of it. */
export const LONGEST_FIRST_LINE = 2000;
export const LONGEST_LOOKED_AT = 50_000;

/** `magic`: where the magic begins to which the SQL from `from` to `to` belongs. */
export interface ISqlRange {
  readonly magic: number;
  readonly from: number;
  readonly to: number;
}

/** Empty lines before a magic are no line to IPython. `%%spark` runs SQL with `--lang sql`. */
const FIRST_LINE = /^(?:[ \t]*\n)*%%(?:sparksql(?![\w?])|spark[ \t](?:[^\n]*[ \t])?--lang[= \t]+sql(?!\w))[^\n]*/;
const ONE_LINE = '%sparksql';
/** The options before the SQL; these switches have no value (SQL_OPTIONS in magics/spark/magic.py). */
const OPTIONS = /(?:--(?:overwrite|quiet|as-dict|explain)(?![^\s])[ \t]*|--[a-z-]+(?:=|[ \t]+)(?:"[^"\n]*"|'[^'\n]*'|[^ \t\n]+)[ \t]*)*/;
/** `%sparksql …` alone or assigned; a line that ends with a backslash goes on. */
const LINE = new RegExp(
  `^(?:[ \\t]*[A-Za-z_][\\w.,\\[\\]* \\t]*=)?[ \\t]*${ONE_LINE}[ \\t]+${OPTIONS.source}(?<sql>(?:[^\\n]*\\\\\\n)*[^\\n]*\\n?)`,
  'gm'
);

export function isSqlCell(beginning: string): boolean {
  return FIRST_LINE.test(beginning);
}

/** Where the SQL begins: after the magic's line, which may be the end of the text. */
export function startOfSql(beginning: string): number {
  const found = FIRST_LINE.exec(beginning);
  return found === null ? beginning.length : found[0].length + 1;
}

/** Whether any of it may be SQL. */
export function hasSql(text: string): boolean {
  return isSqlCell(text.slice(0, LONGEST_FIRST_LINE)) || (text.includes(ONE_LINE) && sqlLines(text).length > 0);
}

/** All SQL of the cell, of which `text` is the beginning and `length` the whole. */
export function sqlRanges(text: string, length: number): ISqlRange[] {
  const beginning = text.slice(0, LONGEST_FIRST_LINE);
  if (!isSqlCell(beginning)) {
    return sqlLines(text);
  }
  const from = startOfSql(beginning);
  return from < length ? [{ magic: 0, from, to: length }] : [];
}

function sqlLines(text: string): ISqlRange[] {
  const found: ISqlRange[] = [];
  for (const match of text.matchAll(LINE)) {
    const to = match.index + match[0].length;
    const from = to - (match.groups?.sql ?? '').length;
    if (text.slice(from, to).trim() !== '') {
      found.push({ magic: match.index + match[0].indexOf(ONE_LINE), from, to });
    }
  }
  return found;
}
