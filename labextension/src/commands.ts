/** Commands, as the palette, menus, shortcuts and other extensions call them. None takes more than an id. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import type { IActions } from './components/actions';
import { tuttiIcon } from './icons';
import { CommandIDs, type IModel } from './model/tokens';
import { PANEL_ID } from './panel';

const NO_ARGUMENTS = { args: { type: 'object', properties: {} } } as const;
const ROW = '.tl-Job[data-job-id]';
const RUN_ROW = '.tl-Run[data-run-id]';

export function addCommands(app: JupyterFrontEnd, model: IModel, actions: IActions, trans: TranslationBundle): void {
  const { commands, shell } = app;
  const jobArguments = {
    args: {
      type: 'object',
      properties: { id: { type: 'string', description: trans.__('The id of the job; the one under the menu when it is left out.') } }
    }
  } as const;
  const runArguments = {
    args: {
      type: 'object',
      properties: { id: { type: 'string', description: trans.__('The id of the run; the one under the menu when it is left out.') } }
    }
  } as const;
  const idOf = (args: ReadonlyPartialJSONObject, selector: string, attribute: string): string | null => {
    const given = args['id'];
    if (typeof given === 'string') {
      return given;
    }
    const isRow = (node: HTMLElement): boolean => node.matches(selector);
    return app.contextMenuHitTest(isRow)?.getAttribute(attribute) ?? null;
  };
  const jobId = (args: ReadonlyPartialJSONObject): string | null => idOf(args, ROW, 'data-job-id');
  const runId = (args: ReadonlyPartialJSONObject): string | null => idOf(args, RUN_ROW, 'data-run-id');
  const isLive = (args: ReadonlyPartialJSONObject): boolean => {
    const id = jobId(args);
    return id !== null && !(model.job(id)?.is_ended ?? false);
  };
  const hasEnded = (args: ReadonlyPartialJSONObject): boolean => {
    const id = jobId(args);
    return id !== null && (model.job(id)?.is_ended ?? true);
  };

  commands.addCommand(CommandIDs.showPanel, {
    label: trans.__('Show Jobs, Quota and DAGs'),
    icon: tuttiIcon,
    describedBy: NO_ARGUMENTS,
    execute: () => shell.activateById(PANEL_ID)
  });
  commands.addCommand(CommandIDs.refresh, {
    label: trans.__('Refresh Jobs, Quota and DAGs'),
    describedBy: NO_ARGUMENTS,
    execute: () => model.refresh()
  });
  commands.addCommand(CommandIDs.startControlPlane, {
    label: trans.__('Start the Control Plane'),
    describedBy: NO_ARGUMENTS,
    isEnabled: () => model.connection === 'down' && model.canStart,
    execute: () => actions.startControlPlane()
  });
  commands.addCommand(CommandIDs.openJob, {
    label: trans.__('Show Job'),
    describedBy: jobArguments,
    isEnabled: args => jobId(args) !== null,
    execute: args => {
      const id = jobId(args);
      if (id !== null) {
        actions.openJob(id);
      }
    }
  });
  commands.addCommand(CommandIDs.openLogs, {
    label: trans.__('Show Log'),
    describedBy: jobArguments,
    isEnabled: args => jobId(args) !== null,
    execute: args => {
      const id = jobId(args);
      if (id !== null) {
        actions.openLogs(id);
      }
    }
  });
  commands.addCommand(CommandIDs.openBoard, {
    label: trans.__('Open TensorBoard on Results'),
    describedBy: jobArguments,
    isEnabled: args => jobId(args) !== null,
    execute: args => {
      const id = jobId(args);
      if (id !== null) {
        actions.openBoard(id);
      }
    }
  });
  commands.addCommand(CommandIDs.cancelJob, {
    label: trans.__('Cancel Job'),
    describedBy: jobArguments,
    isEnabled: isLive,
    execute: async args => {
      const id = jobId(args);
      if (id !== null) {
        await actions.cancelJob(id, 'always');
      }
    }
  });
  commands.addCommand(CommandIDs.retryJob, {
    label: trans.__('Run Job Again'),
    describedBy: jobArguments,
    isEnabled: hasEnded,
    execute: async args => {
      const id = jobId(args);
      if (id !== null) {
        await actions.retryJob(id, 'always');
      }
    }
  });
  commands.addCommand(CommandIDs.deleteJob, {
    label: trans.__('Delete Job'),
    describedBy: jobArguments,
    isEnabled: hasEnded,
    execute: async args => {
      const id = jobId(args);
      if (id !== null) {
        await actions.deleteJob(id);
      }
    }
  });
  commands.addCommand(CommandIDs.copyJobId, {
    label: trans.__('Copy Job Id'),
    describedBy: jobArguments,
    isEnabled: args => jobId(args) !== null,
    execute: args => {
      const id = jobId(args);
      if (id !== null) {
        Clipboard.copyToSystem(id);
      }
    }
  });
  commands.addCommand(CommandIDs.openRun, {
    label: trans.__('Show Graph'),
    describedBy: runArguments,
    isEnabled: args => runId(args) !== null,
    execute: args => {
      const id = runId(args);
      if (id !== null) {
        actions.openRun(id);
      }
    }
  });
  commands.addCommand(CommandIDs.cancelRun, {
    label: trans.__('Cancel Run'),
    describedBy: runArguments,
    isEnabled: args => runId(args) !== null,
    execute: async args => {
      const id = runId(args);
      if (id !== null) {
        await actions.cancelRun(id, 'always');
      }
    }
  });
  commands.addCommand(CommandIDs.retryRun, {
    label: trans.__('Go on with Run'),
    describedBy: runArguments,
    isEnabled: args => runId(args) !== null,
    execute: async args => {
      const id = runId(args);
      if (id !== null) {
        await actions.retryRun(id, 'always');
      }
    }
  });

  const jobCommands = [
    CommandIDs.openJob,
    CommandIDs.openLogs,
    CommandIDs.copyJobId,
    CommandIDs.retryJob,
    CommandIDs.cancelJob,
    CommandIDs.deleteJob
  ];
  jobCommands.forEach((command, rank) => app.contextMenu.addItem({ command, selector: ROW, rank }));
  const runCommands = [CommandIDs.openRun, CommandIDs.retryRun, CommandIDs.cancelRun];
  runCommands.forEach((command, rank) => app.contextMenu.addItem({ command, selector: RUN_ROW, rank }));
}

/** Commands for the palette: those that need no job. */
export const PALETTE = [CommandIDs.showPanel, CommandIDs.refresh, CommandIDs.startControlPlane];
