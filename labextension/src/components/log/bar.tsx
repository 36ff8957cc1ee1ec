/** The bar above a log. */

import { Clipboard, Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { caretDownIcon, caretUpIcon, copyIcon, downloadIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { messageOf } from '../../model/client';
import type { Attempt, IModel, Job } from '../../model/tokens';
import { type JobLog, MOST_TOGETHER, wholeLog } from '../../text/jobLog';
import { IconButton } from '../iconButton';
import { safeName, saveFile } from '../saveFile';
import type { IChoice } from './logView';

const LONGEST_QUERY = 200;

interface IProps {
  log: JobLog;
  job: Job | undefined;
  pods: Attempt['pods'];
  choice: IChoice;
  setChoice: (choice: IChoice) => void;
  input: React.RefObject<HTMLInputElement>;
  query: string;
  search: (text: string) => void;
  matches: readonly number[];
  current: number;
  step: (by: 1 | -1) => void;
  goToError: () => void;
  isFollowing: boolean;
  setFollowing: (isFollowing: boolean) => void;
  isWrapped: boolean;
  setWrapped: (isWrapped: boolean) => void;
  ranks: readonly number[];
  names: ReadonlyMap<number, string>;
  model: IModel;
  trans: TranslationBundle;
}

export function Bar(props: IProps): React.JSX.Element {
  const { log, job, trans, query, matches, current, step, ranks, names } = props;
  const prefix = (rank: number): string => (ranks.length > 1 ? `[${names.get(rank) ?? rank}] ` : '');
  const place = matches.indexOf(current) + 1;
  const onSearchKey = (event: React.KeyboardEvent): void => {
    if (event.key === 'Enter') {
      step(event.shiftKey ? -1 : 1);
    } else if (event.key === 'Escape' && query !== '') {
      props.search('');
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div className="tl-LogBar" role="toolbar" aria-label={trans.__('Log')}>
      <Choosers {...props} />
      <span className="tl-LogBar-search">
        <input
          ref={props.input}
          type="search"
          className="jp-mod-styled"
          placeholder={trans.__('Search')}
          aria-label={trans.__('Search the log')}
          maxLength={LONGEST_QUERY}
          value={query}
          onChange={event => props.search(event.target.value)}
          onKeyDown={onSearchKey}
        />
        <span className="tl-LogBar-count" role="status">
          {query !== '' && (matches.length > 0 ? trans.__('%1 of %2', place || '–', matches.length) : trans.__('no match'))}
        </span>
        <IconButton icon={caretUpIcon} label={trans.__('Previous match')} onClick={() => step(-1)} />
        <IconButton icon={caretDownIcon} label={trans.__('Next match')} onClick={() => step(1)} />
      </span>
      {log.firstError() >= 0 && (
        <button type="button" className="tl-LogBar-button" onClick={props.goToError}>
          {trans.__('First error')}
        </button>
      )}
      <label className="tl-Log-follow">
        <input type="checkbox" checked={props.isWrapped} onChange={event => props.setWrapped(event.target.checked)} />
        {trans.__('Wrap')}
      </label>
      <label className="tl-Log-follow">
        <input type="checkbox" checked={props.isFollowing} onChange={event => props.setFollowing(event.target.checked)} />
        {trans.__('Follow')}
      </label>
      <span className="tl-LogBar-end">
        <IconButton icon={copyIcon} label={trans.__('Copy the log')} onClick={() => Clipboard.copyToSystem(log.text(prefix))} />
        <Download {...props} name={job?.name ?? log.jobId} />
      </span>
    </div>
  );
}

function Choosers({ job, pods, choice, setChoice, ranks, trans }: IProps): React.JSX.Element {
  const attempts = job?.attempts ?? [];
  return (
    <>
      {attempts.length > 1 && (
        <select
          className="jp-mod-styled tl-Log-rank"
          aria-label={trans.__('Which attempt')}
          value={choice.attempt ?? ''}
          onChange={event => setChoice({ rank: null, attempt: event.target.value === '' ? null : Number(event.target.value) })}
        >
          <option value="">{trans.__('newest attempt')}</option>
          {attempts.map(attempt => (
            <option key={attempt.number} value={attempt.number}>
              {trans.__('attempt %1', attempt.number)}
            </option>
          ))}
        </select>
      )}
      {pods.length > 1 && (
        <select
          className="jp-mod-styled tl-Log-rank"
          aria-label={trans.__('Whose log')}
          value={choice.rank ?? (ranks.length > 1 ? '' : ranks[0])}
          onChange={event => setChoice({ ...choice, rank: event.target.value === '' ? null : Number(event.target.value) })}
        >
          {pods.length <= MOST_TOGETHER && <option value="">{trans.__('all ranks')}</option>}
          {pods.map(pod => (
            <option key={pod.rank} value={pod.rank}>
              {trans.__('%1 %2', pod.role, pod.rank)}
            </option>
          ))}
        </select>
      )}
    </>
  );
}

/** Saves the whole log of the chosen ranks as a file, also the lines that are not kept here. */
function Download({ model, log, ranks, names, choice, name, trans }: IProps & { name: string }): React.JSX.Element {
  const [isBusy, setBusy] = React.useState(false);
  const download = async (): Promise<void> => {
    if (isBusy) {
      return;
    }
    setBusy(true);
    try {
      const parts: string[] = [];
      for (const rank of ranks) {
        if (ranks.length > 1) {
          parts.push(`==> ${names.get(rank) ?? rank} <==\n`);
        }
        parts.push(...(await wholeLog(model, log.jobId, rank, choice.attempt)));
      }
      saveFile(new Blob(parts, { type: 'text/plain' }), fileName(name, ranks));
    } catch (error) {
      Notification.error(messageOf(error), { autoClose: 8000 });
    } finally {
      setBusy(false);
    }
  };
  return (
    <IconButton
      icon={downloadIcon}
      label={isBusy ? trans.__('The log is being fetched…') : trans.__('Download the log')}
      onClick={() => void download()}
    />
  );
}

function fileName(name: string, ranks: readonly number[]): string {
  const safe = safeName(name);
  return ranks.length === 1 && ranks[0] !== 0 ? `${safe}-${ranks[0]}.log` : `${safe}.log`;
}
