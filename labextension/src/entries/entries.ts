/** Ways to a job from where one works: a cell's menu, a notebook's toolbar and menu, the launcher. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, Notification, showDialog, ToolbarButton } from '@jupyterlab/apputils';
import type { FileBrowser } from '@jupyterlab/filebrowser';
import type { ILauncher } from '@jupyterlab/launcher';
import { type INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { DisposableDelegate, type IDisposable } from '@lumino/disposable';

import { tuttiIcon } from '../icons';
import { messageOf } from '../model/client';
import { CommandIDs, type IModel } from '../model/tokens';
import { FormBody, type IFormOptions } from './form';
import { ask, type IAnswer } from './kernel';
import { cellLine, type IForm, magicOf, notebookLine } from './line';

/** The button's place in the notebook's toolbar: after the cell's type. */
const TOOLBAR_INDEX = 10;
const CODE_CELL = '.jp-Notebook .jp-CodeCell';
const NOTEBOOK_FILE = '.jp-DirListing-item[data-file-type="notebook"]';
const NO_ARGUMENTS = { args: { type: 'object', properties: {} } } as const;

export interface IParts {
  app: JupyterFrontEnd;
  model: IModel;
  notebooks: INotebookTracker;
  /** The file browser in use, when there is one. */
  browser: () => FileBrowser | null;
  launcher: ILauncher | null;
  trans: TranslationBundle;
}

export function addEntries(parts: IParts): void {
  const { app, notebooks, launcher, trans } = parts;
  app.commands.addCommand(CommandIDs.submitCell, {
    label: trans.__('Run This Cell as a Job…'),
    icon: tuttiIcon,
    describedBy: NO_ARGUMENTS,
    isEnabled: () => notebooks.activeCell?.model.type === 'code',
    execute: () => submitCell(parts)
  });
  app.commands.addCommand(CommandIDs.submitNotebook, {
    label: trans.__('Submit Notebook as Job…'),
    icon: tuttiIcon,
    describedBy: {
      args: { type: 'object', properties: { path: { type: 'string', description: trans.__('The notebook; the one chosen when it is left out.') } } }
    },
    execute: async args => {
      const given = args['path'];
      const path = typeof given === 'string' ? given : chosenNotebook(parts);
      if (path === null) {
        Notification.warning(trans.__('No notebook is chosen: open one, or choose one in the file browser.'), { autoClose: 8000 });
      } else {
        await submitNotebook(parts, path);
      }
    }
  });
  app.contextMenu.addItem({ command: CommandIDs.submitCell, selector: CODE_CELL, rank: 0.5 });
  app.contextMenu.addItem({ command: CommandIDs.submitNotebook, selector: NOTEBOOK_FILE, rank: 3 });
  app.docRegistry.addWidgetExtension('Notebook', { createNew: (panel: NotebookPanel) => toolbarButton(parts, panel) });
  launcher?.add({ command: CommandIDs.showPanel, category: trans.__('Other'), rank: 10 });
}

function toolbarButton({ app, trans }: IParts, panel: NotebookPanel): IDisposable {
  const button = new ToolbarButton({
    icon: tuttiIcon,
    tooltip: trans.__('Submit Notebook as Job…'),
    onClick: () => void app.commands.execute(CommandIDs.submitNotebook, { path: panel.context.path })
  });
  panel.toolbar.insertItem(TOOLBAR_INDEX, 'tuttilab-submit', button);
  return new DisposableDelegate(() => button.dispose());
}

/** The one that is marked in the file browser under the menu, else the one that is open. */
function chosenNotebook({ app, notebooks, browser }: IParts): string | null {
  const isFile = app.contextMenuHitTest(node => node.matches(NOTEBOOK_FILE)) !== undefined;
  const marked = [...(browser()?.selectedItems() ?? [])].find(item => item.type === 'notebook');
  return (isFile ? marked?.path : (notebooks.currentWidget?.context.path ?? marked?.path)) ?? null;
}

async function submitCell(parts: IParts): Promise<void> {
  const { notebooks, model, trans } = parts;
  const panel = notebooks.currentWidget;
  const cell = notebooks.activeCell;
  if (panel === null || cell === null) {
    return;
  }
  const source = cell.model.sharedModel.getSource();
  const magic = magicOf(source);
  if (magic !== '') {
    const text =
      magic === '%%submit'
        ? trans.__('The cell is a job already: it begins with %1. Run it.', magic)
        : trans.__('The cell begins with %1, which does not run in a job.', magic);
    Notification.warning(text, { autoClose: 8000 });
    return;
  }
  const dryRun = async (form: IForm): Promise<IAnswer> => {
    const kernel = panel.sessionContext.session?.kernel;
    if (!kernel) {
      return { text: trans.__('The notebook has no kernel.'), isError: true };
    }
    if (kernel.status === 'busy') {
      return { text: trans.__('The kernel is busy; what would happen is not known.'), isError: false };
    }
    return ask(kernel, `${cellLine(form)} --dry-run\n${source}`);
  };
  const form = await askForm(trans.__('Run this cell as a job'), { name: '', queues: model.queues, hasWorkers: true, dryRun, trans });
  if (form !== null && !cell.isDisposed) {
    // The line stays in the notebook: names travel and come back, and the next run is the same.
    cell.model.sharedModel.setSource(`${cellLine(form)}\n${source}`);
    await NotebookActions.run(panel.content, panel.sessionContext);
  }
}

async function submitNotebook(parts: IParts, path: string): Promise<void> {
  const { app, model, notebooks, trans } = parts;
  const contents = app.serviceManager.contents;
  const local = contents.localPath(path);
  const open = notebooks.find(panel => panel.context.path === path);
  if (open?.context.model.dirty) {
    await open.context.save();
  }
  // A kernel of its own, in the folder that Jupyter serves: the notebook's may be busy.
  let kernel: Promise<Kernel.IKernelConnection> | null = null;
  const run = async (line: string): Promise<IAnswer> => {
    kernel ??= app.serviceManager.kernels.startNew({ name: app.serviceManager.kernelspecs.specs?.default });
    return ask(await kernel, line);
  };
  try {
    const form = await askForm(trans.__('Submit %1 as a job', local), {
      name: local.split('/').pop()!.replace(/\.ipynb$/, ''),
      queues: model.queues,
      hasWorkers: false,
      dryRun: form => run(`${notebookLine(local, form)} --dry-run`),
      trans
    });
    if (form !== null) {
      const { text, isError } = await run(`${notebookLine(local, form)} --detach`);
      Notification.emit(text, isError ? 'error' : 'success', { autoClose: 8000 });
    }
  } catch (error) {
    Notification.error(messageOf(error), { autoClose: 8000 });
  } finally {
    const used = kernel as Promise<Kernel.IKernelConnection> | null;
    void used?.then(found => found.shutdown()).catch(() => undefined);
  }
}

async function askForm(title: string, options: IFormOptions): Promise<IForm | null> {
  const { trans } = options;
  const answer = await showDialog<IForm>({
    title,
    body: new FormBody(options),
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Submit') })],
    focusNodeSelector: 'input'
  });
  return answer.button.accept ? answer.value : null;
}
