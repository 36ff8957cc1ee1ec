/** What a cell showed in its job: texts as text, pictures as pictures. HTML stays in the notebook. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { Details, IModel, Job, ShownList } from '../../model/tokens';
import { Section } from './section';

const PICTURES = ['image/png', 'image/jpeg'];
const EVERY_MS = 2500;

interface IProps {
  job: Job;
  details: Details | null;
  /** Whether the page is on screen: else nothing is fetched. */
  isShown: boolean;
  model: IModel;
  trans: TranslationBundle;
}

export function ShownSection({ job, details, isShown, model, trans }: IProps): React.JSX.Element | null {
  const list = useShown(model, job, isShown && (details?.sent ?? null) !== null);
  if (list === null || list.shown.length === 0) {
    return null;
  }
  return (
    <Section title={trans.__('Shown')} note={list.more > 0 ? trans.__('without %1 earlier outputs', list.more) : ''}>
      {list.shown.map((one, index) => (
        <figure key={index} className="tl-Shown">
          {PICTURES.includes(one.kind) && one.picture !== '' ? (
            <img src={`data:${one.kind};base64,${one.picture}`} alt={one.text || trans.__('a figure')} />
          ) : (
            one.text !== '' && <pre tabIndex={0}>{one.text}</pre>
          )}
          {(one.is_value || one.others.length > 0) && (
            <figcaption>{[one.is_value ? trans.__('the value of the cell') : '', one.others.join(', ')].filter(Boolean).join(' · ')}</figcaption>
          )}
        </figure>
      ))}
    </Section>
  );
}

/** What rank 0 showed, fetched again while the job runs whenever there is more of it. */
function useShown(model: IModel, job: Job, isNeeded: boolean): ShownList | null {
  const [list, setList] = React.useState<ShownList | null>(null);
  const known = React.useRef({ attempt: 0, size: 0 });
  const attempt = job.attempts.length;
  React.useEffect(() => {
    if (!isNeeded || attempt === 0) {
      return undefined;
    }
    if (known.current.attempt !== attempt) {
      known.current = { attempt, size: 0 };
      setList(null);
    }
    let isCurrent = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const fetch = async (): Promise<void> => {
      try {
        const found = await model.shown(job.id, 0, known.current.size);
        if (isCurrent && found.size !== known.current.size) {
          known.current.size = found.size;
          setList(found);
        }
      } catch {
        // A service that does not answer is said in the panel; the next look shows the rest.
      }
      if (isCurrent && !job.is_ended) {
        timer = setTimeout(() => void fetch(), EVERY_MS);
      }
    };
    void fetch();
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [model, job.id, attempt, job.is_ended, isNeeded]);
  return list;
}
