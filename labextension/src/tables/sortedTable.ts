/** A table on the page whose rows are ordered by a click on a column's name and filtered by a text. Its rows stay what they are. */

import { compare, csvOf, hasText, type IFacts, type Value } from './facts';

const NULL_CLASS = 'tuttilab-null';

interface IRow {
  node: HTMLTableRowElement;
  values: readonly Value[];
}

/** `sign` -1: descending. */
interface IOrder {
  column: number;
  sign: 1 | -1;
}

export class SortedTable {
  /** Null where the page has another table than the facts tell of. `onChange`: other rows are shown, or in another order. */
  static of(table: HTMLTableElement | null, facts: IFacts, onChange: () => void): SortedTable | null {
    const heads = [...(table?.tHead?.rows[0]?.cells ?? [])];
    const body = table?.tBodies[0];
    const isAsTold = heads.length === facts.columns.length && heads.length > 0;
    return body !== undefined && isAsTold ? new SortedTable(heads, body, facts, onChange) : null;
  }

  private constructor(
    private readonly _heads: readonly HTMLTableCellElement[],
    private readonly _body: HTMLTableSectionElement,
    private readonly _facts: IFacts,
    private readonly _onChange: () => void
  ) {
    this._names = _heads.map(head => head.textContent ?? '');
    this._rows = [..._body.rows].map(node => ({ node, values: [...node.cells].map(valueOf) }));
    this._shown = this._rows;
    _heads.forEach((head, column) => this._addButton(head, column));
  }

  get count(): number {
    return this._rows.length;
  }

  get shownCount(): number {
    return this._shown.length;
  }

  /** The rows on screen, as they stand, below the names of the columns. */
  csv(): string {
    return csvOf([this._names, ...this._shown.map(row => row.values)]);
  }

  filter(text: string): void {
    this._wanted = text.trim().toLowerCase();
    this._show();
  }

  private _addButton(head: HTMLTableCellElement, column: number): void {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = `tl-Sort tl-mod-${this._facts.columns[column]!}`;
    const name = document.createElement('span');
    name.append(...head.childNodes);
    const arrow = document.createElement('span');
    arrow.className = 'tl-Sort-arrow';
    arrow.setAttribute('aria-hidden', 'true');
    button.append(name, arrow);
    button.addEventListener('click', () => this._turn(column));
    head.append(button);
    head.scope = 'col';
    head.setAttribute('aria-sort', 'none');
  }

  /** Ascending, descending, as it came. */
  private _turn(column: number): void {
    const sign = this._order?.column === column ? this._order.sign : null;
    this._order = sign === -1 ? null : { column, sign: sign === null ? 1 : -1 };
    this._heads.forEach((head, index) => {
      const isThis = this._order?.column === index;
      head.setAttribute('aria-sort', isThis ? (this._order!.sign === 1 ? 'ascending' : 'descending') : 'none');
    });
    this._show();
  }

  private _show(): void {
    const shown = this._rows.filter(row => hasText(row.values, this._wanted));
    const order = this._order;
    if (order !== null) {
      const { column, sign } = order;
      const kind = this._facts.columns[column]!;
      shown.sort((a, b) => compare(a.values[column] ?? null, b.values[column] ?? null, kind, sign));
    }
    this._shown = shown;
    this._body.replaceChildren(...shown.map(row => row.node));
    this._onChange();
  }

  private readonly _names: readonly string[];
  private readonly _rows: readonly IRow[];
  private _shown: readonly IRow[];
  private _order: IOrder | null = null;
  private _wanted = '';
}

function valueOf(cell: HTMLTableCellElement): Value {
  return cell.classList.contains(NULL_CLASS) ? null : (cell.getAttribute('title') ?? cell.textContent ?? '');
}
