/** The plugins: what each requires of Lab, and which part of this folder it adds. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IEditorExtensionRegistry, IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IRunningSessionManagers } from '@jupyterlab/running';
import type { Event } from '@jupyterlab/services';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import type { SidePanel } from '@jupyterlab/ui-components';
import { Token } from '@lumino/coreutils';
import { createElement } from 'react';

import { addCommands, PALETTE } from './commands';
import { Actions, type IActions } from './components/actions';
import { addBoxRenderer } from './components/box/boxRenderer';
import { viewStore } from './components/jobs/keptView';
import { Runs } from './components/runs';
import { pythonPaint } from './editors/paint';
import { addSqlCells } from './editors/sqlCells';
import { addEntries } from './entries/entries';
import { Requests } from './model/client';
import { Model } from './model/model';
import { CommandIDs, IModel, type INotice } from './model/tokens';
import { addNotices } from './notices';
import { addSection, createPanel } from './panel';
import { addToRunning } from './running';
import { addPagesRenderer } from './tables/pagesRenderer';
import { addTableRenderer } from './tables/tableRenderer';
import { Tabs } from './tabs';

export { IModel } from './model/tokens';

const DOMAIN = 'tuttilab';
const SCHEMA_ID = 'https://tuttilab/events/changed/v1';
const CHECK_MS = 15_000;
const CHECK_DOWN_MS = 2_000;

/** The sidebar as the other plugins here see it. */
interface IPanel {
  readonly widget: SidePanel;
  readonly actions: IActions;
}

const IPanel = new Token<IPanel>(
  '@tuttilab/labextension:IPanel',
  'The sidebar, and the actions on jobs and runs with their confirmation dialogs.'
);

/** The user's settings, read at each use so that a change applies at once. */
interface IUserSettings {
  confirmCancel: boolean;
  followLogs: boolean;
  notify: boolean;
}

const model: JupyterFrontEndPlugin<IModel> = {
  id: '@tuttilab/labextension:model',
  description: 'Jobs, quota and DAG runs of the signed-in user, kept fresh by push.',
  autoStart: true,
  provides: IModel,
  activate: (app: JupyterFrontEnd): IModel => {
    const manager = app.serviceManager;
    const model = new Model(new Requests(manager.serverSettings));
    manager.events.stream.connect((_: unknown, event: Event.Emission) => {
      if (event.schema_id === SCHEMA_ID) {
        model.notice(event as unknown as INotice);
      }
    });
    // Notices are neither repeated nor stored, so the status is checked periodically and when the page becomes visible again.
    let timer: ReturnType<typeof setTimeout>;
    const check = async (): Promise<void> => {
      clearTimeout(timer);
      if (document.visibilityState === 'visible') {
        await model.checkStatus();
      }
      timer = setTimeout(() => void check(), model.connection === 'up' ? CHECK_MS : CHECK_DOWN_MS);
    };
    document.addEventListener('visibilitychange', () => void check());
    void check();
    return model;
  }
};

const panel: JupyterFrontEndPlugin<IPanel> = {
  id: '@tuttilab/labextension:panel',
  description: 'The sidebar with jobs and quota, and the tabs that it opens.',
  autoStart: true,
  provides: IPanel,
  requires: [IModel],
  optional: [ISettingRegistry, ITranslator, ILayoutRestorer, IStateDB, IEditorLanguageRegistry],
  activate: (
    app: JupyterFrontEnd,
    model: IModel,
    settings: ISettingRegistry | null,
    translator: ITranslator | null,
    restorer: ILayoutRestorer | null,
    state: IStateDB | null,
    languages: IEditorLanguageRegistry | null
  ): IPanel => {
    const actualTranslator = translator ?? nullTranslator;
    const trans = actualTranslator.load(DOMAIN);
    const userSettings: IUserSettings = { confirmCancel: true, followLogs: true, notify: true };
    const tabs = new Tabs(app.shell, model, userSettings, languages && pythonPaint(languages), trans);
    const actions = new Actions(model, tabs, userSettings, trans);
    tabs.actions = actions;
    const applied = settings === null ? Promise.resolve() : applySettings(settings, userSettings, model);
    const store = state && viewStore(state, applied);
    const widget = createPanel(model, actions, store, actualTranslator, trans);
    app.shell.add(widget, 'left', { rank: 300, type: 'tuttilab' });
    if (restorer !== null) {
      restorer.add(widget, widget.id);
      tabs.restore(restorer);
    }
    const showPanel = (): void => void app.commands.execute(CommandIDs.showPanel);
    addNotices(app.shell, model, tabs, userSettings, showPanel, trans);
    return { widget, actions };
  }
};

/** Now and whenever they change. Done when they were applied once, or could not be read. */
async function applySettings(settings: ISettingRegistry, userSettings: IUserSettings, model: IModel): Promise<void> {
  try {
    const loaded = await settings.load(panel.id);
    const apply = (): void => {
      userSettings.confirmCancel = loaded.get('confirmCancel').composite as boolean;
      userSettings.followLogs = loaded.get('followLogs').composite as boolean;
      userSettings.notify = loaded.get('notify').composite as boolean;
      model.setFilter({ ended: loaded.get('showEnded').composite as boolean });
    };
    loaded.changed.connect(apply);
    apply();
  } catch (error) {
    console.warn('tuttilab: the settings could not be read', error);
  }
}

const dag: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:dag',
  description: 'DAG runs in the sidebar.',
  autoStart: true,
  requires: [IModel, IPanel],
  optional: [ITranslator, IStateDB],
  activate: (
    _app: JupyterFrontEnd,
    model: IModel,
    panel: IPanel,
    translator: ITranslator | null,
    state: IStateDB | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addSection(panel.widget, trans.__('DAGs'), createElement(Runs, { model, actions: panel.actions, trans }), state);
  }
};

const commands: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:commands',
  description: 'Commands for jobs and runs, in the palette and in the menus of their rows.',
  autoStart: true,
  requires: [IModel, IPanel],
  optional: [ICommandPalette, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IModel,
    panel: IPanel,
    palette: ICommandPalette | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addCommands(app, model, panel.actions, trans);
    for (const command of PALETTE) {
      palette?.addItem({ command, category: trans.__('tuttilab') });
    }
  }
};

const running: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:running',
  description: 'Live jobs in the Running panel.',
  autoStart: true,
  requires: [IModel, IPanel, IRunningSessionManagers],
  optional: [ITranslator],
  activate: (
    _app: JupyterFrontEnd,
    model: IModel,
    panel: IPanel,
    managers: IRunningSessionManagers,
    translator: ITranslator | null
  ): void => {
    addToRunning(managers, model, panel.actions, (translator ?? nullTranslator).load(DOMAIN));
  }
};

const box: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:box',
  description: 'The output boxes of cells that sent a job, bound to its true state.',
  autoStart: true,
  requires: [IModel, IRenderMimeRegistry],
  optional: [ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IModel,
    rendermime: IRenderMimeRegistry,
    translator: ITranslator | null
  ): void => {
    const run = (command: string, id?: string): void => void app.commands.execute(command, id === undefined ? {} : { id });
    const actions = {
      openJob: (id: string) => run(app.commands.hasCommand(CommandIDs.openJob) ? CommandIDs.openJob : CommandIDs.openLogs, id),
      openLogs: (id: string) => run(CommandIDs.openLogs, id),
      showJobs: (text: string) => {
        model.setFilter({ ended: true, text });
        run(CommandIDs.showPanel);
      }
    };
    addBoxRenderer(rendermime, model, actions, (translator ?? nullTranslator).load(DOMAIN));
  }
};

const table: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:table',
  description: 'Outputs of Spark: result tables, ordered by a column, filtered by a text, saved as CSV, and links to its pages.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  optional: [ITranslator],
  activate: (app: JupyterFrontEnd, rendermime: IRenderMimeRegistry, translator: ITranslator | null): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addTableRenderer(rendermime, trans);
    addPagesRenderer(rendermime, app.serviceManager.serverSettings.baseUrl, trans);
  }
};

const sql: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:sql',
  description: 'The colours of SQL in cells of Spark SQL.',
  autoStart: true,
  requires: [IEditorExtensionRegistry, IEditorLanguageRegistry],
  activate: (_app: JupyterFrontEnd, extensions: IEditorExtensionRegistry, languages: IEditorLanguageRegistry): void => {
    addSqlCells(extensions, languages);
  }
};

const entries: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:entries',
  description: 'A cell or a notebook as a job: menus, the notebook toolbar, the launcher.',
  autoStart: true,
  requires: [IModel, INotebookTracker],
  optional: [IDefaultFileBrowser, ILauncher, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IModel,
    notebooks: INotebookTracker,
    browser: IDefaultFileBrowser | null,
    launcher: ILauncher | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addEntries({ app, model, notebooks, browser: () => browser, launcher, trans });
  }
};

export default [model, panel, dag, commands, running, box, table, sql, entries];
