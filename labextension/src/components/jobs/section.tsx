/** The section of the sidebar with jobs: filter, the bar of what is chosen, the list. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { clearIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IModel } from '../../model/tokens';
import type { IActions } from '../actions';
import { useModel } from '../hooks';
import { IconButton } from '../iconButton';
import { sorted } from './choice';
import { Filter } from './filter';
import { FIRST_VIEW, type IViewStore } from './keptView';
import { JobList } from './list';
import { ENDED, type IView, rowsOf } from './rows';

interface IProps {
  model: IModel;
  actions: IActions;
  trans: TranslationBundle;
}

export function Jobs({ model, actions, store, trans }: IProps & { store: IViewStore | null }): React.JSX.Element {
  useModel(model, 'jobs', 'connection', 'runs');
  const [view, setView] = useView(model, store);
  const [marked, setMarked] = React.useState<ReadonlySet<string>>(new Set());
  const rows = React.useMemo(() => rowsOf(model.jobs, model.runs, view), [model.jobs, model.runs, view]);
  // What a filter or a deletion took off the list is not acted on.
  const chosen = React.useMemo(() => {
    const listed = new Set(rows.flatMap(row => (row.kind === 'job' ? [row.job.id] : row.group.jobs.map(job => job.id))));
    return new Set([...marked].filter(id => listed.has(id)));
  }, [rows, marked]);
  return (
    <div className="tl-Jobs">
      <Filter model={model} trans={trans} view={view} setView={setView} />
      {chosen.size > 0 && (
        <Chosen model={model} actions={actions} trans={trans} chosen={chosen} onClear={() => setMarked(new Set())} />
      )}
      {rows.length > 0 ? (
        <JobList
          model={model}
          actions={actions}
          trans={trans}
          rows={rows}
          chosen={chosen}
          setChosen={setMarked}
          onToggle={(key, isOpen) => setView({ opened: toggledGroup(view.opened, key, isOpen) })}
        />
      ) : (
        <EmptyList model={model} trans={trans} isFiltered={view.states.size > 0} />
      )}
    </div>
  );
}

/** With that group as the last one. */
function toggledGroup(opened: ReadonlyMap<string, boolean>, key: string, isOpen: boolean): ReadonlyMap<string, boolean> {
  const next = new Map(opened);
  next.delete(key);
  return next.set(key, isOpen);
}

/** The view as it was left, and then as it is changed here. */
function useView(model: IModel, store: IViewStore | null): [IView, (change: Partial<IView>) => void] {
  const [view, setWholeView] = React.useState(FIRST_VIEW);
  const [isFetched, setFetched] = React.useState(false);
  const isTouched = React.useRef(false);
  const { text } = model.filter;
  React.useEffect(() => {
    store
      ?.fetch()
      .then(kept => {
        // Whoever was faster than the state database has chosen anew.
        if (kept === null || isTouched.current) {
          return;
        }
        setWholeView(kept);
        const hasEnded = [...kept.states].some(state => ENDED.has(state));
        model.setFilter({ text: model.filter.text || kept.text, ...(hasEnded ? { ended: true } : {}) });
      })
      .catch((error: unknown) => console.warn('tuttilab: the view of the jobs could not be read', error))
      .finally(() => setFetched(true));
  }, [model, store]);
  const setView = React.useCallback(
    (change: Partial<IView>) => {
      isTouched.current = true;
      setWholeView(old => ({ ...old, ...change }));
    },
    []
  );
  React.useEffect(() => {
    if (isFetched) {
      store?.save({ ...view, text });
    }
  }, [store, isFetched, view, text]);
  return [view, setView];
}

function EmptyList(props: { model: IModel; trans: TranslationBundle; isFiltered: boolean }): React.JSX.Element {
  const { model, trans } = props;
  React.useEffect(() => {
    // What fits may be on a later page.
    if (model.hasMore) {
      void model.loadMore();
    }
  }, [model, model.pages, model.hasMore]);
  if (model.connection !== 'up') {
    return <div className="tl-Empty" />;
  }
  const isFiltered = props.isFiltered || model.filter.text !== '' || !model.filter.ended;
  return (
    <div className="tl-Empty">
      {isFiltered ? trans.__('No job fits this filter.') : trans.__('No jobs yet. A cell that begins with %1 makes one.', '%%submit')}
    </div>
  );
}

/** What can be done with the chosen jobs, each with how many of them it concerns. */
function Chosen(props: IProps & { chosen: ReadonlySet<string>; onClear: () => void }): React.JSX.Element {
  const { model, actions, trans, chosen, onClear } = props;
  const { live, ended } = sorted(model.jobs, chosen);
  const act = (work: Promise<boolean>): void =>
    void work.then(isDone => {
      if (isDone) {
        onClear();
      }
    });
  return (
    <div className="tl-Chosen" role="toolbar" aria-label={trans.__('Chosen jobs')}>
      <span className="tl-Chosen-count" role="status">
        {trans.__('%1 chosen', chosen.size)}
      </span>
      {live.length > 0 && <Button label={trans.__('Cancel %1', live.length)} onClick={() => act(actions.cancelJobs(live))} />}
      {ended.length > 0 && (
        <>
          <Button label={trans.__('Run %1 again', ended.length)} onClick={() => act(actions.retryJobs(ended))} />
          <Button label={trans.__('Delete %1', ended.length)} onClick={() => act(actions.deleteJobs(ended))} />
        </>
      )}
      <IconButton icon={clearIcon} label={trans.__('Choose none')} onClick={onClear} />
    </div>
  );
}

function Button({ label, onClick }: { label: string; onClick: () => void }): React.JSX.Element {
  return (
    <button type="button" className="jp-Button jp-mod-styled jp-mod-minimal tl-Chosen-button" onClick={onClick}>
      {label}
    </button>
  );
}
