/** The heights of the sidebar's sections: kept over a reload, and in proportion when the window changes its own. */

import type { IStateDB } from '@jupyterlab/statedb';
import { MessageLoop } from '@lumino/messaging';
import type { AccordionPanel } from '@lumino/widgets';

const KEY = 'tuttilab:sections';
const SAVE_PAUSE_MS = 300;

/** `sizes`: the first shares of the sections, from above. */
export function keepHeights(content: AccordionPanel, sizes: readonly number[], state: IStateDB | null): void {
  let wanted = sizes;
  let timer: ReturnType<typeof setTimeout>;
  // Lumino gives each section an equal part of what a window grows by; the shares would drift with each change.
  const apply = (): void => {
    const isOpen = content.widgets.length === wanted.length && content.widgets.every(section => !section.isHidden);
    if (isOpen && !content.isDisposed) {
      content.setRelativeSizes([...wanted]);
    }
  };
  content.handleMoved.connect(() => {
    wanted = content.relativeSizes();
    clearTimeout(timer);
    timer = setTimeout(() => void state?.save(KEY, [...wanted]), SAVE_PAUSE_MS);
  });
  MessageLoop.installMessageHook(content, (_, message) => {
    if (message.type === 'resize' || message.type === 'after-show') {
      requestAnimationFrame(apply);
    }
    return true;
  });
  apply();
  void state?.fetch(KEY).then(saved => {
    if (isShares(saved)) {
      wanted = saved;
      apply();
    }
  });
}

function isShares(saved: unknown): saved is number[] {
  return Array.isArray(saved) && saved.every(size => typeof size === 'number' && size >= 0 && size <= 1);
}
