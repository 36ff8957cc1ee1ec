/** The plugins: what each needs of Lab and which part of this folder it puts there. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IRunningSessionManagers } from '@jupyterlab/running';
import type { Event } from '@jupyterlab/services';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import type { SidePanel } from '@jupyterlab/ui-components';
import { Token } from '@lumino/coreutils';
import { createElement } from 'react';

import { Requests } from './client';
import { addCommands, PALETTE } from './commands';
import { Actions, type IActions } from './components/actions';
import { Runs } from './components/runs';
import { Model } from './model';
import { addSection, createPanel } from './panel';
import { addToRunning } from './running';
import { Tabs } from './tabs';
import { IModel, type INotice } from './tokens';

export { IModel } from './tokens';

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
  'The sidebar, and what can be done with jobs and runs, with the questions that are asked before.'
);

/** What the user has set; read when it is needed, so that a change counts at once. */
interface IChosen {
  confirmCancel: boolean;
  followLogs: boolean;
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
    // Notices are neither repeated nor kept, so now and then, and when the page comes back, it asks whether it missed one.
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
  optional: [ISettingRegistry, ITranslator, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    model: IModel,
    settings: ISettingRegistry | null,
    translator: ITranslator | null,
    restorer: ILayoutRestorer | null
  ): IPanel => {
    const used = translator ?? nullTranslator;
    const trans = used.load(DOMAIN);
    const chosen: IChosen = { confirmCancel: true, followLogs: true };
    const tabs = new Tabs(app.shell, model, chosen, trans);
    const actions = new Actions(model, tabs, chosen, trans);
    tabs.actions = actions;
    const widget = createPanel(model, actions, used, trans);
    app.shell.add(widget, 'left', { rank: 300, type: 'tuttilab' });
    restorer?.add(widget, widget.id);
    if (settings !== null) {
      void settings.load(panel.id).then(
        loaded => {
          const apply = (): void => {
            chosen.confirmCancel = loaded.get('confirmCancel').composite as boolean;
            chosen.followLogs = loaded.get('followLogs').composite as boolean;
            model.setFilter({ ended: loaded.get('showEnded').composite as boolean });
          };
          loaded.changed.connect(apply);
          apply();
        },
        (error: unknown) => console.warn('tuttilab: the settings could not be read', error)
      );
    }
    return { widget, actions };
  }
};

const dag: JupyterFrontEndPlugin<void> = {
  id: '@tuttilab/labextension:dag',
  description: 'DAG runs in the sidebar.',
  autoStart: true,
  requires: [IModel, IPanel],
  optional: [ITranslator],
  activate: (_app: JupyterFrontEnd, model: IModel, panel: IPanel, translator: ITranslator | null): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addSection(panel.widget, trans.__('DAGs'), createElement(Runs, { model, actions: panel.actions, trans }));
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

export default [model, panel, dag, commands, running];
