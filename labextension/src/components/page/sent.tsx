/** What a job runs and what went along with it, and what it has kept. */

import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { copyIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { Paint } from '../../editors/paint';
import { messageOf } from '../../model/client';
import type { Details, IModel, Job } from '../../model/tokens';
import { bytes, commandLine } from '../../text/amounts';
import { IconButton } from '../iconButton';
import { Pairs, Section } from './section';

export function CodeSection(props: {
  job: Job;
  details: Details | null;
  problem: string;
  /** Null: without colours. */
  paint: Paint | null;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { job, details, problem, paint, trans } = props;
  const sent = details?.sent ?? null;
  return (
    <Section title={sent === null ? trans.__('Command') : trans.__('Cell')} note={sent?.cell_name ?? ''}>
      <Code text={sent?.cell ?? commandLine(job.command)} paint={sent === null ? null : paint} trans={trans} />
      {Object.entries(sent?.functions ?? {}).map(([name, text]) => (
        <details key={name} className="tl-Function">
          <summary>{trans.__('from %1', name)}</summary>
          <Code text={text} paint={paint} trans={trans} />
        </details>
      ))}
      {sent?.is_cut && <p className="tl-Part-more">{trans.__('It is longer than what is shown here.')}</p>}
      {problem && (
        <p className="tl-Part-more" role="status">
          {problem}
        </p>
      )}
    </Section>
  );
}

export function useDetails(model: IModel, job: Job | undefined): { details: Details | null; problem: string } {
  const [details, setDetails] = React.useState<Details | null>(null);
  const [problem, setProblem] = React.useState('');
  const id = job?.id;
  React.useEffect(() => {
    if (id === undefined) {
      return undefined;
    }
    let isCurrent = true;
    model.details(id).then(
      found => {
        if (isCurrent) {
          setDetails(found);
          setProblem('');
        }
      },
      (error: unknown) => {
        if (isCurrent) {
          setProblem(messageOf(error));
        }
      }
    );
    return () => {
      isCurrent = false;
    };
    // Outputs come when a pod ends; the rest never changes.
  }, [model, id, job?.is_ended, job?.attempts.length]);
  return { details, problem };
}

function Code({ text, paint, trans }: { text: string; paint: Paint | null; trans: TranslationBundle }): React.JSX.Element {
  const place = React.useRef<HTMLPreElement>(null);
  React.useEffect(() => {
    const coloured = document.createElement('code');
    let isCurrent = true;
    paint?.(text, coloured).then(
      () => {
        if (isCurrent) {
          place.current?.replaceChildren(...coloured.childNodes);
        }
      },
      (error: unknown) => console.warn('tuttilab: source stays without colours', error)
    );
    return () => {
      isCurrent = false;
    };
  }, [text, paint]);
  return (
    <div className="tl-Code">
      {/* With another text it is another element: the pieces of the old one are not React's. */}
      <pre key={text} ref={place} tabIndex={0}>
        {text}
      </pre>
      <IconButton icon={copyIcon} label={trans.__('Copy')} onClick={() => Clipboard.copyToSystem(text)} />
    </div>
  );
}

export function Given({ details, trans }: { details: Details; trans: TranslationBundle }): React.JSX.Element | null {
  const sent = details.sent;
  const none = sent === null || (Object.keys(sent.names).length === 0 && Object.keys(sent.files).length === 0);
  const others = [details.image, details.workdir, ...details.env, ...details.inputs].some(Boolean) || details.retries > 0;
  if (none && !others) {
    return null;
  }
  return (
    <Section title={trans.__('Sent along')} note={sent === null ? '' : bytes(sent.size)}>
      {sent !== null && <Sizes label={trans.__('Names')} sizes={sent.names} />}
      {sent !== null && <Sizes label={trans.__('Files')} sizes={sent.files} />}
      {sent !== null && sent.more > 0 && <p className="tl-Part-more">{trans.__('and %1 more', sent.more)}</p>}
      <Pairs
        pairs={[
          details.image === null ? null : [trans.__('Image'), details.image],
          details.workdir === null ? null : [trans.__('Working folder'), <bdi key="folder">{details.workdir}</bdi>],
          details.env.length === 0 ? null : [trans.__('Variables set'), details.env.join(', ')],
          details.inputs.length === 0 ? null : [trans.__('Inputs'), <bdi key="inputs">{details.inputs.join(', ')}</bdi>],
          details.framework === '' || details.framework === 'none' ? null : [trans.__('Framework'), details.framework],
          details.retries === 0 ? null : [trans.__('Retries'), String(details.retries)]
        ]}
      />
    </Section>
  );
}

function Sizes({ label, sizes }: { label: string; sizes: Record<string, number> }): React.JSX.Element | null {
  const entries = Object.entries(sizes).sort((a, b) => b[1] - a[1]);
  if (entries.length === 0) {
    return null;
  }
  return (
    <ul className="tl-Sizes" aria-label={label}>
      {entries.map(([name, size]) => (
        <li key={name}>
          <code>{name}</code> <span>{bytes(size)}</span>
        </li>
      ))}
    </ul>
  );
}

export function Kept({ job, details, trans }: { job: Job; details: Details; trans: TranslationBundle }): React.JSX.Element | null {
  const outputs = details.outputs;
  if (outputs.length === 0) {
    return null;
  }
  const isGang = new Set(outputs.map(output => output.rank)).size > 1;
  return (
    <Section title={trans.__('Gave back')}>
      <ul className="tl-Sizes" aria-label={trans.__('Outputs')}>
        {outputs.map(output => (
          <li key={`${output.rank} ${output.name}`}>
            <code>{output.name}</code> {isGang && <span>{trans.__('rank %1', output.rank)}</span>}{' '}
            <span>{output.size === null ? trans.__('not here any more') : bytes(output.size)}</span>
          </li>
        ))}
      </ul>
      {details.more_outputs > 0 && <p className="tl-Part-more">{trans.__('and %1 more', details.more_outputs)}</p>}
      {details.sent !== null && (
        <p className="tl-Part-more">
          {trans.__('In a notebook, %1 brings the result back.', `%attach ${job.id}`)}{' '}
        </p>
      )}
    </Section>
  );
}
