/** A link to Spark's own pages of a session, below the address at which this browser has Lab: the kernel does not know that one. */

import { URLExt } from '@jupyterlab/coreutils';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { pagesPath, PAGES_MIME, sessionOf } from './pages';

/** Before Lab's own renderer of HTML, whose rank is 50. */
const RANK = 40;

export function addPagesRenderer(rendermime: IRenderMimeRegistry, baseUrl: string, trans: TranslationBundle): void {
  rendermime.addFactory(
    {
      // The link leads to the user's own server, whatever a notebook says.
      safe: true,
      mimeTypes: [PAGES_MIME],
      createRenderer: () => new PagesRenderer(baseUrl, trans)
    },
    RANK
  );
}

class PagesRenderer extends Widget implements IRenderMime.IRenderer {
  constructor(
    private readonly _baseUrl: string,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-RenderedHTMLCommon');
  }

  renderModel(output: IRenderMime.IMimeModel): Promise<void> {
    const session = sessionOf(output.data[PAGES_MIME]);
    if (session === null) {
      this.node.textContent = String(output.data['text/plain'] ?? '');
      return Promise.resolve();
    }
    const link = document.createElement('a');
    link.href = URLExt.join(this._baseUrl, pagesPath(session));
    link.target = '_blank';
    link.rel = 'noopener';
    link.textContent = this._trans.__('Pages of Spark session %1', session);
    this.node.replaceChildren(link);
    return Promise.resolve();
  }
}
