/** How a view follows the model, and the clock. */

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';

import type { IModel, Part } from '../tokens';

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

/** Seconds since the epoch, anew each second while `isNeeded` and somebody can see it. */
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
