/** Main-area tabs: a job's log, a run's graph, a TensorBoard. One each, which is shown again when it is asked for again. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { IFrame, ReactWidget } from '@jupyterlab/ui-components';
import type { Widget } from '@lumino/widgets';
import * as React from 'react';

import type { IActions, ITabs } from './components/actions';
import { Graph } from './components/graph';
import { Log } from './components/log';
import { tuttiIcon } from './icons';
import type { IModel } from './tokens';

export interface ITabSettings {
  followLogs: boolean;
}

export class Tabs implements ITabs {
  constructor(
    private readonly _shell: JupyterFrontEnd.IShell,
    private readonly _model: IModel,
    private readonly _settings: ITabSettings,
    private readonly _trans: TranslationBundle
  ) {}

  /** Set before the first tab opens: actions and tabs need each other. */
  actions: IActions | null = null;

  openLogs(id: string): void {
    const follow = this._settings.followLogs;
    this._show(`tuttilab-log-${id}`, this._model.job(id)?.name ?? id, () =>
      view(<Log id={id} follow={follow} model={this._model} actions={this.actions!} trans={this._trans} />)
    );
  }

  openRun(id: string): void {
    this._show(`tuttilab-run-${id}`, this._model.run(id)?.name ?? id, () =>
      view(<Graph id={id} model={this._model} actions={this.actions!} trans={this._trans} />)
    );
  }

  openBoard(id: string, path: string): void {
    const name = this._model.job(id)?.name ?? id;
    this._show(`tuttilab-board-${id}`, this._trans.__('TensorBoard of %1', name), () => {
      const frame = new IFrame({ sandbox: ['allow-scripts', 'allow-same-origin', 'allow-downloads'] });
      frame.url = path;
      frame.addClass('tl-Board');
      return frame;
    });
  }

  private _show(id: string, label: string, create: () => Widget): void {
    for (const widget of this._shell.widgets('main')) {
      if (widget.id === id) {
        this._shell.activateById(id);
        return;
      }
    }
    const tab = new MainAreaWidget({ content: create() });
    tab.id = id;
    tab.title.label = label;
    tab.title.caption = label;
    tab.title.icon = tuttiIcon;
    tab.title.closable = true;
    tab.toolbar.hide();
    this._shell.add(tab, 'main');
    this._shell.activateById(id);
  }
}

function view(element: React.JSX.Element): ReactWidget {
  const widget = ReactWidget.create(element);
  widget.addClass('tl-Tab');
  return widget;
}
