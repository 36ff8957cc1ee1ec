/** Main-area tabs: a job's page or log, a run's graph, a TensorBoard. There is one tab for each; opening it again activates it. */

import type { ILayoutRestorer, JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Widget } from '@lumino/widgets';
import * as React from 'react';

import type { IActions, ITabs } from './components/actions';
import { BoardTab } from './components/boardTab';
import { Graph } from './components/graph';
import { LogTab } from './components/log/logTab';
import { JobPage } from './components/page/jobPage';
import type { Paint } from './editors/paint';
import { tuttiIcon } from './icons';
import { CommandIDs, type IModel } from './model/tokens';

export interface ITabSettings {
  followLogs: boolean;
}

export class Tabs implements ITabs {
  constructor(
    private readonly _shell: JupyterFrontEnd.IShell,
    private readonly _model: IModel,
    private readonly _settings: ITabSettings,
    private readonly _paint: Paint | null,
    private readonly _trans: TranslationBundle
  ) {}

  /** Set before the first tab opens: actions and tabs need each other. */
  actions: IActions | null = null;

  openJob(id: string): void {
    const tabId = tabOfJob(id);
    this._show(tabId, this._nameOfJob(id), this._jobs, () => {
      const onDeleted = (): void => this._close(tabId);
      return view(<JobPage {...this._propsOf(id, tabId)} paint={this._paint} onDeleted={onDeleted} />);
    });
  }

  openLogs(id: string): void {
    const tabId = tabOfLog(id);
    this._show(tabId, this._nameOfJob(id), this._logs, () => view(<LogTab {...this._propsOf(id, tabId)} />));
  }

  openRun(id: string): void {
    const tabId = tabOfRun(id);
    this._show(tabId, this._model.run(id)?.name ?? id, this._runs, () =>
      view(
        <Graph
          id={id}
          model={this._model}
          actions={this.actions!}
          trans={this._trans}
          onName={name => this._rename(tabId, name)}
        />
      )
    );
  }

  /** Whether one of these tabs is on screen. */
  isShown(...ids: string[]): boolean {
    for (const widget of this._shell.widgets('main')) {
      if (ids.includes(widget.id) && widget.isVisible) {
        return true;
      }
    }
    return false;
  }

  /** Pages, logs, graphs and TensorBoards that were open come back when Lab is loaded again. */
  restore(restorer: ILayoutRestorer): void {
    for (const [tracker, command] of [
      [this._jobs, CommandIDs.openJob],
      [this._logs, CommandIDs.openLogs],
      [this._runs, CommandIDs.openRun],
      [this._boards, CommandIDs.openBoard]
    ] as const) {
      void restorer.restore(tracker, {
        command,
        args: widget => ({ id: idOfTab(widget.id) }),
        name: widget => widget.id
      });
    }
  }

  openBoard(id: string): void {
    const tabId = KINDS.board + id;
    this._show(tabId, this._trans.__('TensorBoard of %1', this._nameOfJob(id)), this._boards, () =>
      view(<BoardTab id={id} model={this._model} trans={this._trans} onName={name => this._rename(tabId, name)} />)
    );
  }

  private _nameOfJob(id: string): string {
    return this._model.job(id)?.name ?? id;
  }

  private _propsOf(id: string, tabId: string): React.ComponentProps<typeof LogTab> {
    return {
      id,
      follow: this._settings.followLogs,
      model: this._model,
      actions: this.actions!,
      trans: this._trans,
      onName: (name: string) => this._rename(tabId, name)
    };
  }

  private _find(id: string): Widget | null {
    for (const widget of this._shell.widgets('main')) {
      if (widget.id === id) {
        return widget;
      }
    }
    return null;
  }

  /** A tab that was restored had only its id. */
  private _rename(id: string, label: string): void {
    const tab = this._find(id);
    if (tab !== null) {
      tab.title.label = label;
      tab.title.caption = label;
    }
  }

  private _close(id: string): void {
    this._find(id)?.close();
  }

  private _show(id: string, label: string, tracker: Tracker, create: () => Widget): void {
    if (this._find(id) !== null) {
      this._shell.activateById(id);
      return;
    }
    const tab = new MainAreaWidget({ content: create() });
    tab.id = id;
    tab.title.label = label;
    tab.title.caption = label;
    tab.title.icon = tuttiIcon;
    tab.title.closable = true;
    tab.toolbar.hide();
    this._shell.add(tab, 'main');
    void tracker.add(tab);
    this._shell.activateById(id);
  }

  private readonly _jobs: Tracker = new WidgetTracker({ namespace: 'tuttilab-jobs' });
  private readonly _logs: Tracker = new WidgetTracker({ namespace: 'tuttilab-logs' });
  private readonly _runs: Tracker = new WidgetTracker({ namespace: 'tuttilab-runs' });
  private readonly _boards: Tracker = new WidgetTracker({ namespace: 'tuttilab-boards' });
}

type Tracker = WidgetTracker<MainAreaWidget>;

const KINDS = { job: 'tuttilab-job-', log: 'tuttilab-log-', run: 'tuttilab-run-', board: 'tuttilab-board-' };

/** Ids of the tabs of a job's page, a job's log and a run's graph. */
export const tabOfJob = (id: string): string => KINDS.job + id;
export const tabOfLog = (id: string): string => KINDS.log + id;
export const tabOfRun = (id: string): string => KINDS.run + id;

function idOfTab(tabId: string): string {
  const kind = Object.values(KINDS).find(each => tabId.startsWith(each)) ?? '';
  return tabId.slice(kind.length);
}

function view(element: React.JSX.Element): ReactWidget {
  const widget = ReactWidget.create(element);
  widget.addClass('tl-Tab');
  return widget;
}
