/** What a result's table says of itself (magics/spark/display.py), and values of its cells: compared, searched, as CSV. No requests. */

export const MIME = 'application/vnd.tuttilab.table+json';
const VERSION = 1;
const MOST_COLUMNS = 10_000;

export interface IFacts {
  columns: readonly Kind[];
  /** Whether the rows shown are all rows of the result. */
  isWhole: boolean;
  /** Values that are cut in the table. */
  cut: number;
}

export type Kind = 'number' | 'text';

/** The text of a cell in full; null for NULL. */
export type Value = string | null;

/** Null for data of another version or shape: then the table is shown as it is. */
export function parseFacts(data: unknown): IFacts | null {
  if (typeof data !== 'object' || data === null) {
    return null;
  }
  const given = data as Record<string, unknown>;
  const columns = given['columns'];
  if (given['version'] !== VERSION || !Array.isArray(columns) || columns.length > MOST_COLUMNS) {
    return null;
  }
  const cut = given['cut'];
  return {
    columns: columns.map(kind => (kind === 'number' ? 'number' : 'text')),
    isWhole: given['is_whole'] === true,
    cut: typeof cut === 'number' && Number.isFinite(cut) ? cut : 0
  };
}

const WHOLE = /^-?\d+$/;
const texts = new Intl.Collator();

/** As `ORDER BY` of the kind does; NULL and NaN come last in both directions, so `sign` is part of it. */
export function compare(a: Value, b: Value, kind: Kind, sign: 1 | -1): number {
  const isEmpty = (value: Value): boolean => value === null || (kind === 'number' && value === 'nan');
  if (isEmpty(a) || isEmpty(b)) {
    return Number(isEmpty(a)) - Number(isEmpty(b));
  }
  return sign * (kind === 'number' ? compareNumbers(a!, b!) : texts.compare(a!, b!));
}

function compareNumbers(a: string, b: string): number {
  if (WHOLE.test(a) && WHOLE.test(b)) {
    // Beyond 2 ** 53 two of them may be one number to JavaScript.
    const [one, other] = [BigInt(a), BigInt(b)];
    return one < other ? -1 : one > other ? 1 : 0;
  }
  return numberOf(a) - numberOf(b) || 0;
}

function numberOf(text: string): number {
  switch (text) {
    case 'inf':
      return Number.MAX_VALUE;
    case '-inf':
      return -Number.MAX_VALUE;
    default:
      return Number(text);
  }
}

/** Whether one of the values has the text, in whatever case. `wanted` in lower case. */
export function hasText(values: readonly Value[], wanted: string): boolean {
  return wanted === '' || values.some(value => (value ?? 'NULL').toLowerCase().includes(wanted));
}

/** RFC 4180; NULL is an empty field, and an empty text is quoted so that it stays one. */
export function csvOf(rows: readonly (readonly Value[])[]): string {
  return rows.map(row => row.map(field).join(',') + '\r\n').join('');
}

function field(value: Value): string {
  if (value === null) {
    return '';
  }
  return value === '' || /[",\r\n]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value;
}
