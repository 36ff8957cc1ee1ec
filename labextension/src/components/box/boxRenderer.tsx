/** Draws the output box of a cell that sent a job: the kernel's HTML, below a first line that knows the job's true state. */

import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { Panel } from '@lumino/widgets';
import * as React from 'react';

import type { IModel, Job } from '../../model/tokens';
import { countPhases, endedJobTexts, endedMapTexts, type IBox, MIME, parseBox } from './boxData';
import { BoxHead, type IBoxActions } from './boxHead';

/** Before Lab's own renderer of HTML, whose rank is 50. */
const RANK = 40;
/** A kernel that lives says the end itself, within a second or so. */
const KERNEL_PAUSE_MS = 5000;

export function addBoxRenderer(
  rendermime: IRenderMimeRegistry,
  model: IModel,
  actions: IBoxActions,
  trans: TranslationBundle
): void {
  rendermime.addFactory(
    {
      // The HTML goes through Lab's own renderer, which sanitizes what is not trusted.
      safe: true,
      mimeTypes: [MIME],
      createRenderer: () => new BoxRenderer(rendermime, model, actions, trans)
    },
    RANK
  );
}

class BoxRenderer extends Panel implements IRenderMime.IRenderer {
  constructor(rendermime: IRenderMimeRegistry, model: IModel, actions: IBoxActions, trans: TranslationBundle) {
    super();
    this.addClass('tl-Box');
    this._head = new Head(model, actions, trans, ended => this._onEnd(ended));
    this._body = rendermime.createRenderer('text/html');
    this.addWidget(this._head);
    this.addWidget(this._body);
  }

  async renderModel(output: IRenderMime.IMimeModel): Promise<void> {
    this._output = output;
    const box = parseBox(output.data[MIME]);
    this.toggleClass('tl-mod-bound', box !== null && !box.isEnded);
    this._head.showBox(box);
    await this._body.renderModel(output);
  }

  override dispose(): void {
    clearTimeout(this._timer);
    super.dispose();
  }

  /** The kernel is gone or was not there: the notebook itself gets the end, so that it is saved so. */
  private _onEnd(ended: readonly Job[]): void {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => {
      const output = this._output;
      const box = output === null ? null : parseBox(output.data[MIME]);
      if (output !== null && box !== null && !box.isEnded && !this.isDisposed) {
        output.setData({ data: endedData(output.data, box, ended) });
      }
    }, KERNEL_PAUSE_MS);
  }

  private readonly _head: Head;
  private readonly _body: IRenderMime.IRenderer;
  private _output: IRenderMime.IMimeModel | null = null;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}

function endedData(data: ReadonlyPartialJSONObject, box: IBox, ended: readonly Job[]): ReadonlyPartialJSONObject {
  const texts = { html: String(data['text/html'] ?? ''), plain: String(data['text/plain'] ?? '') };
  const phases = countPhases(ended);
  const { html, plain } = box.stem ? endedMapTexts(texts, phases) : endedJobTexts(texts, box, ended[0]!);
  const given = data[MIME] as ReadonlyPartialJSONObject;
  const at = Math.max(...ended.map(job => job.ended_at ?? 0));
  const state = box.stem ? { phases: Object.fromEntries(phases) } : { phase: ended[0]!.phase };
  return { ...data, [MIME]: { ...given, ...state, is_ended: true, at }, 'text/html': html, 'text/plain': plain };
}

class Head extends ReactWidget {
  constructor(
    private readonly _model: IModel,
    private readonly _actions: IBoxActions,
    private readonly _trans: TranslationBundle,
    private readonly _onEnd: (ended: readonly Job[]) => void
  ) {
    super();
  }

  showBox(box: IBox | null): void {
    this._box = box;
    this.update();
  }

  protected override render(): React.JSX.Element | null {
    return this._box === null ? null : (
      <BoxHead
        key={this._box.stem || this._box.id}
        box={this._box}
        model={this._model}
        actions={this._actions}
        trans={this._trans}
        onEnd={this._onEnd}
      />
    );
  }

  private _box: IBox | null = null;
}
