/** The form before a job is sent: what it asks for, and the verdict of the dry run below it. */

import type { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';

import { messageOf } from '../model/client';
import type { Queue } from '../model/tokens';
import { FIRST_FORM, type IForm } from './line';
import type { IAnswer } from './kernel';

const TYPING_PAUSE_MS = 500;
/** Of the dry run's lines: the verdict and what the job counts as. */
const LINES = 2;
const MOST_CHARACTERS = 400;

export interface IFormOptions {
  name: string;
  queues: readonly Queue[];
  /** Whether the job may be a gang. */
  hasWorkers: boolean;
  /** The dry run of the form. */
  dryRun: (form: IForm) => Promise<IAnswer>;
  trans: TranslationBundle;
}

export class FormBody extends ReactWidget implements Dialog.IBodyWidget<IForm> {
  constructor(private readonly _options: IFormOptions) {
    super();
    this._form = { ...FIRST_FORM, name: _options.name };
  }

  getValue(): IForm {
    return this._form;
  }

  protected override render(): React.JSX.Element {
    return <Form options={this._options} onChange={form => (this._form = form)} />;
  }

  private _form: IForm;
}

function Form({ options, onChange }: { options: IFormOptions; onChange: (form: IForm) => void }): React.JSX.Element {
  const { trans } = options;
  const [form, setForm] = React.useState<IForm>({ ...FIRST_FORM, name: options.name });
  const set = (key: keyof IForm) => (event: React.ChangeEvent<HTMLInputElement | HTMLSelectElement>): void => {
    const next = { ...form, [key]: event.target.value };
    setForm(next);
    onChange(next);
  };
  const text = (key: keyof IForm, label: string, hint = ''): React.JSX.Element => (
    <label className="tl-Form-field">
      <span>{label}</span>
      <input className="jp-mod-styled" type="text" dir="auto" maxLength={200} value={form[key]} placeholder={hint} onChange={set(key)} />
    </label>
  );
  return (
    <div className="tl-Form">
      {text('name', trans.__('Name'), trans.__('as the cell'))}
      <label className="tl-Form-field">
        <span>{trans.__('Queue')}</span>
        <select className="jp-mod-styled" value={form.queue} onChange={set('queue')}>
          <option value="">{trans.__('the usual one')}</option>
          {options.queues
            .filter(queue => queue.mine)
            .map(queue => (
              <option key={queue.name} value={queue.name}>
                {queue.name}
              </option>
            ))}
        </select>
      </label>
      {text('cpus', trans.__('CPUs'))}
      {text('memory', trans.__('Memory'))}
      {text('gpus', trans.__('GPUs'))}
      {options.hasWorkers && text('workers', trans.__('Workers'))}
      {text('timeout', trans.__('Time limit'), trans.__('none; such as 2h'))}
      <Verdict form={form} options={options} />
    </div>
  );
}

function Verdict({ form, options }: { form: IForm; options: IFormOptions }): React.JSX.Element {
  const { trans, dryRun } = options;
  const [answer, setAnswer] = React.useState<IAnswer | null>(null);
  React.useEffect(() => {
    let isCurrent = true;
    setAnswer(null);
    const timer = setTimeout(() => {
      dryRun(form).then(
        found => isCurrent && setAnswer(found),
        (error: unknown) => isCurrent && setAnswer({ text: messageOf(error), isError: true })
      );
    }, TYPING_PAUSE_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [form, dryRun]);
  const isBad = answer !== null && (answer.isError || answer.text.startsWith('refused'));
  const shown = answer?.text.split('\n').slice(0, LINES).join('\n').slice(0, MOST_CHARACTERS);
  return (
    <div className={`tl-Form-verdict${isBad ? ' tl-mod-failed' : ''}`} role="status">
      {shown ?? trans.__('Asking what would happen…')}
    </div>
  );
}
