/** Python source in the colours of Lab's editors, outside of one. */

import { syntaxHighlighting } from '@codemirror/language';
import { EditorView } from '@codemirror/view';
import { type IEditorLanguageRegistry, jupyterHighlightStyle } from '@jupyterlab/codemirror';

/** Writes the text into the place, in coloured pieces. */
export type Paint = (text: string, place: HTMLElement) => Promise<void>;

export function pythonPaint(languages: IEditorLanguageRegistry): Paint {
  let isMounted = false;
  return async (text, place) => {
    if (!isMounted) {
      // The rules of the colours come to the page with the first editor, and there may be none yet.
      new EditorView({ extensions: syntaxHighlighting(jupyterHighlightStyle) }).destroy();
      isMounted = true;
    }
    await languages.highlight(text, languages.findByMIME('text/x-ipython'), place);
  };
}
