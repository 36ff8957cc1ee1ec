/** What the form asks for, as the line of a magic. Nothing that is drawn. */

export interface IForm {
  name: string;
  queue: string;
  cpus: string;
  memory: string;
  gpus: string;
  workers: string;
  timeout: string;
}

export const FIRST_FORM: IForm = { name: '', queue: '', cpus: '1', memory: '1Gi', gpus: '0', workers: '1', timeout: '' };

/** The options that differ from the magic's own, each value quoted where it must be. */
export function optionsOf(form: IForm): string {
  return (Object.keys(FIRST_FORM) as (keyof IForm)[])
    .map(key => [key, form[key].trim()] as const)
    .filter(([key, value]) => value !== '' && value !== FIRST_FORM[key])
    .map(([key, value]) => ` --${key} ${quoted(value)}`)
    .join('');
}

export function cellLine(form: IForm): string {
  return `%%submit${optionsOf(form)}`;
}

/** `path`: from the folder that Jupyter serves, where the kernel that runs the line is. */
export function notebookLine(path: string, form: IForm): string {
  return `%submit ${quoted(path)}${optionsOf({ ...form, workers: FIRST_FORM.workers })}`;
}

/** As a shell's word; a line has no line break. */
export function quoted(value: string): string {
  const flat = value.replace(/[\r\n]+/g, ' ');
  return /^[A-Za-z0-9_.,:/@%+=-]+$/.test(flat) ? flat : `'${flat.replace(/'/g, `'"'"'`)}'`;
}

/** The cell magic that the cell begins with, such as `%%sparksql`; empty for plain code. */
export function magicOf(source: string): string {
  return /^\s*(%%\S+)/.exec(source)?.[1] ?? '';
}
