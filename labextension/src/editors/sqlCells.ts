/** Cells with Spark SQL: below a first line that says so, and after `%sparksql` in a line, they are coloured as SQL; the rest stays Python. */

import { type Language, LRLanguage } from '@codemirror/language';
import { Compartment, EditorState, type Extension, Prec, StateEffect, type Text } from '@codemirror/state';
import { type EditorView, ViewPlugin, type ViewUpdate } from '@codemirror/view';
import { EditorExtensionRegistry, type IEditorExtensionRegistry, type IEditorLanguageRegistry } from '@jupyterlab/codemirror';

import { hasSql, LONGEST_LOOKED_AT } from './sqlPlaces';

const PYTHON = 'text/x-ipython';
const NONE: Extension = [];

/** To notebooks and consoles; an editor of a file keeps the language of the file. */
export function addSqlCells(extensions: IEditorExtensionRegistry, languages: IEditorLanguageRegistry): void {
  let cell: Extension | null = null;
  extensions.addExtension({
    name: 'tuttilab:sql-cells',
    factory: ({ inline }) => {
      if (!inline) {
        return null;
      }
      cell ??= sqlCells(() => loadMixed(languages));
      return EditorExtensionRegistry.createImmutableExtension(cell);
    }
  });
}

/** `load`: the language of such cells, asked for when the first one is seen. */
function sqlCells(load: () => Promise<Language>): Extension {
  let loading: Promise<void> | null = null;
  let mixed: Extension | null = null;
  const loaded = StateEffect.define<null>();
  const place = new Compartment();
  const isSql = (doc: Text): boolean => hasSql(doc.sliceString(0, LONGEST_LOOKED_AT));
  // With the change that makes a cell SQL, or no more, the language changes. A place that is empty counts as no language.
  const changer = EditorState.transactionExtender.of(change => {
    if (!change.docChanged && !change.effects.some(effect => effect.is(loaded))) {
      return null;
    }
    const wanted = mixed !== null && isSql(change.newDoc) ? mixed : NONE;
    return place.get(change.startState) === wanted ? null : { effects: place.reconfigure(wanted) };
  });
  const loader = ViewPlugin.fromClass(
    class {
      constructor(private readonly _view: EditorView) {
        this._loadFor(_view.state.doc);
      }

      update(update: ViewUpdate): void {
        if (update.docChanged) {
          this._loadFor(update.state.doc);
        }
      }

      destroy(): void {
        this._isGone = true;
      }

      private _loadFor(doc: Text): void {
        if (this._isAsked || !isSql(doc)) {
          return;
        }
        this._isAsked = true;
        loading ??= load().then(found => {
          // The first language counts: the notebook's own comes after this one.
          mixed = Prec.highest(found);
        });
        loading.then(
          () => {
            if (!this._isGone) {
              this._view.dispatch({ effects: loaded.of(null) });
            }
          },
          (error: unknown) => console.warn('tuttilab: SQL cells stay without colours', error)
        );
      }

      private _isGone = false;
      private _isAsked = false;
    }
  );
  return [place.of(NONE), changer, loader];
}

async function loadMixed(languages: IEditorLanguageRegistry): Promise<Language> {
  const [python, { mixedOf }] = await Promise.all([languages.getLanguage(PYTHON), import('./mixed')]);
  const outer = python?.support?.language;
  if (!(outer instanceof LRLanguage)) {
    throw new Error(`Lab has no parser for ${PYTHON}`);
  }
  return mixedOf(outer);
}
