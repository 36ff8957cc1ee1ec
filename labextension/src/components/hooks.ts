/** React hooks: render again when the model changes or as time passes. */

import { type RefObject, useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';

import { messageOf, Refusal } from '../model/client';
import type { IModel, Job, Part } from '../model/tokens';

/** Render again whenever one of these parts of the model changes. */
export function useModel(model: IModel, ...parts: Part[]): void {
  const version = useRef(0);
  const wanted = parts.join();
  const subscribe = useCallback(
    (onChange: () => void) => {
      const slot = (_: IModel, part: Part): void => {
        if (wanted.includes(part)) {
          version.current += 1;
          onChange();
        }
      };
      model.changed.connect(slot);
      return () => {
        model.changed.disconnect(slot);
      };
    },
    [model, wanted]
  );
  useSyncExternalStore(subscribe, () => version.current);
}

/** Seconds since the epoch, updated each second while `isNeeded` and the page is visible. */
export function useNow(isNeeded: boolean): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!isNeeded) {
      return undefined;
    }
    const tick = (): void => {
      if (document.visibilityState === 'visible') {
        setNow(Date.now() / 1000);
      }
    };
    tick();
    const timer = setInterval(tick, 1000);
    return () => clearInterval(timer);
  }, [isNeeded]);
  return now;
}

const UNLISTED_MS = 5000;

/** A job by its id, kept fresh whether it is listed or not. `isGone`: there is no such job, or no more. */
export function useJob(model: IModel, id: string): { job: Job | undefined; problem: string; isGone: boolean } {
  useModel(model, 'jobs', 'connection');
  const listed = model.job(id);
  const [fetched, setFetched] = useState<Job | undefined>(undefined);
  const [problem, setProblem] = useState('');
  const [isGone, setGone] = useState(false);
  /** Whether it was fetched since it left the list. */
  const [isFresh, setFresh] = useState(false);
  const isNeeded = listed === undefined && !isGone && !(isFresh && (fetched?.is_ended ?? false));
  const isUp = model.connection === 'up';
  useEffect(() => {
    if (!isNeeded) {
      return undefined;
    }
    // Not in the list, because of a filter or its age, so the model does not keep it fresh.
    const fetch = (): void => {
      model.fetchJob(id).then(
        found => {
          setFetched(found);
          setFresh(true);
          setProblem('');
        },
        (error: unknown) => {
          setProblem(messageOf(error));
          setGone(error instanceof Refusal && error.status === 404);
        }
      );
    };
    fetch();
    const timer = setInterval(fetch, UNLISTED_MS);
    return () => clearInterval(timer);
  }, [model, id, isNeeded, isUp]);
  useEffect(() => {
    // When it leaves the list, by a filter or because it was deleted, what was known of it is shown until it is fetched.
    if (listed !== undefined) {
      setFetched(listed);
      setFresh(false);
    }
  }, [listed]);
  return { job: listed ?? fetched, problem: listed === undefined ? problem : '', isGone };
}

/** Whether the element is on screen: not in a tab behind another one. `first`: what is taken for true until that is known. */
export function useIsShown(element: RefObject<Element>, first = true): boolean {
  const [isShown, setShown] = useState(first);
  useEffect(() => {
    if (element.current === null) {
      return undefined;
    }
    const observer = new IntersectionObserver(entries => setShown(entries[entries.length - 1]!.isIntersecting));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [element]);
  return isShown;
}
