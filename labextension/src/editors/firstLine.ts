/** Whether a cell is Spark SQL, by its first line. Nothing of the editor. */

/** Characters of a cell that are looked at. */
export const LONGEST_FIRST_LINE = 2000;

/** Empty lines before a magic are no line to IPython. `%%spark` runs SQL with `--lang sql`. */
const FIRST_LINE = /^(?:[ \t]*\n)*%%(?:sparksql(?![\w?])|spark[ \t](?:[^\n]*[ \t])?--lang[= \t]+sql(?!\w))[^\n]*/;

export function isSqlCell(beginning: string): boolean {
  return FIRST_LINE.test(beginning);
}

/** Where the SQL begins: after the magic's line, which may be the end of the text. */
export function startOfSql(beginning: string): number {
  const found = FIRST_LINE.exec(beginning);
  return found === null ? beginning.length : found[0].length + 1;
}
