/** Draws a result of Spark: the kernel's HTML table, with a line above it, and with columns by which its rows are ordered. */

import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { TranslationBundle } from '@jupyterlab/translation';
import { downloadIcon, ReactWidget } from '@jupyterlab/ui-components';
import { Panel } from '@lumino/widgets';
import * as React from 'react';

import { saveFile } from '../components/saveFile';
import { type IFacts, MIME, parseFacts } from './facts';
import { SortedTable } from './sortedTable';

/** Before Lab's own renderer of HTML, whose rank is 50. */
const RANK = 40;
const FILE = 'result.csv';
/** Fewer rows are seen at a glance. */
const FEWEST_ROWS = 2;

export function addTableRenderer(rendermime: IRenderMimeRegistry, trans: TranslationBundle): void {
  rendermime.addFactory(
    {
      // The HTML goes through Lab's own renderer, which sanitizes what is not trusted; what is added here comes from no notebook.
      safe: true,
      mimeTypes: [MIME],
      createRenderer: () => new TableRenderer(rendermime, trans)
    },
    RANK
  );
}

class TableRenderer extends Panel implements IRenderMime.IRenderer {
  constructor(rendermime: IRenderMimeRegistry, trans: TranslationBundle) {
    super();
    this.addClass('tl-Result');
    this._bar = new Bar(trans);
    this._body = rendermime.createRenderer('text/html');
    this.addWidget(this._bar);
    this.addWidget(this._body);
    this.node.addEventListener('keydown', keepOwnKeys);
  }

  async renderModel(output: IRenderMime.IMimeModel): Promise<void> {
    await this._body.renderModel(output);
    const facts = parseFacts(output.data[MIME]);
    const found = this._body.node.querySelector('table');
    const table = facts && SortedTable.of(found, facts, () => this._bar.update());
    this._bar.showTable(table, facts);
  }

  private readonly _bar: Bar;
  private readonly _body: IRenderMime.IRenderer;
}

/** Letters, Enter and Space on what is added here are not the notebook's commands; Shift-Enter and Ctrl-S still are. */
function keepOwnKeys(event: KeyboardEvent): void {
  const isOwn = event.target instanceof HTMLInputElement || event.target instanceof HTMLButtonElement;
  if (isOwn && !event.ctrlKey && !event.metaKey && !event.altKey && !(event.shiftKey && event.key === 'Enter')) {
    event.stopPropagation();
  }
}

class Bar extends ReactWidget {
  constructor(private readonly _trans: TranslationBundle) {
    super();
    this.addClass('tl-Result-barView');
  }

  showTable(table: SortedTable | null, facts: IFacts | null): void {
    this._table = table;
    this._facts = facts;
    this.update();
  }

  protected override render(): React.JSX.Element | null {
    const [table, facts] = [this._table, this._facts];
    return table === null || facts === null || table.count < FEWEST_ROWS ? null : (
      <Tools table={table} facts={facts} shown={table.shownCount} trans={this._trans} />
    );
  }

  private _table: SortedTable | null = null;
  private _facts: IFacts | null = null;
}

interface IProps {
  table: SortedTable;
  facts: IFacts;
  shown: number;
  trans: TranslationBundle;
}

function Tools({ table, facts, shown, trans }: IProps): React.JSX.Element {
  const [text, setText] = React.useState('');
  React.useEffect(() => table.filter(text), [table, text]);
  const label = facts.isWhole ? trans.__('Filter the rows') : trans.__('Filter the %1 rows shown', count(table.count));
  const what = trans.__('Download the %1 rows shown as CSV', count(shown));
  return (
    <div className="tl-Result-bar" role="toolbar" aria-label={trans.__('Table')}>
      <input
        type="search"
        className="jp-mod-styled"
        placeholder={label}
        aria-label={label}
        dir="auto"
        value={text}
        onChange={event => setText(event.target.value)}
      />
      <button
        type="button"
        className="tl-Result-button"
        title={facts.cut === 0 ? what : trans.__('%1; %2 long values are cut', what, count(facts.cut))}
        aria-label={what}
        onClick={() => saveFile(new Blob([table.csv()], { type: 'text/csv' }), FILE)}
      >
        <downloadIcon.react tag="span" aria-hidden="true" width="14px" height="14px" />
        {trans.__('CSV')}
      </button>
      <span className="tl-Result-note" role="status">
        {noteOf(table, facts, shown, trans)}
      </span>
    </div>
  );
}

/** How many rows a filter left, and of which rows all this speaks. */
function noteOf(table: SortedTable, facts: IFacts, shown: number, trans: TranslationBundle): string {
  const whole = facts.isWhole ? '' : trans.__('order, filter and CSV are of these rows only; %1 writes all', '--save NAME.csv');
  const left = shown === table.count ? '' : trans.__('%1 of %2 rows', count(shown), count(table.count));
  return [left, whole].filter(Boolean).join(' · ');
}

function count(value: number): string {
  return value.toLocaleString(globalThis.document?.documentElement.lang || undefined);
}
