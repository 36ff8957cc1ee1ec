/** Cuts the pieces of a line where a searched text begins and ends, so that it can be marked. */

import type { IPiece } from './ansi';

export interface IMarkedPiece extends IPiece {
  isMarked: boolean;
}

/** `wanted` in whatever case; it may run over pieces of different colours. Addresses stay whole in `href`. */
export function marked(pieces: readonly IPiece[], wanted: string): IMarkedPiece[] {
  const whole = pieces.map(piece => piece.text).join('');
  const lower = whole.toLowerCase();
  const needle = wanted.toLowerCase();
  // Some letters have another length in lower case: positions would not agree.
  if (needle === '' || lower.length !== whole.length) {
    return pieces.map(piece => ({ ...piece, isMarked: false }));
  }
  const cuts: { at: number; isMarked: boolean }[] = [];
  for (let at = lower.indexOf(needle); at >= 0; at = lower.indexOf(needle, at + needle.length)) {
    cuts.push({ at, isMarked: true }, { at: at + needle.length, isMarked: false });
  }
  const found: IMarkedPiece[] = [];
  let next = 0;
  let isMarked = false;
  let start = 0;
  for (const piece of pieces) {
    const end = start + piece.text.length;
    let from = start;
    while (next < cuts.length && cuts[next]!.at < end) {
      const cut = cuts[next]!;
      if (cut.at > from) {
        found.push({ ...piece, text: whole.slice(from, cut.at), isMarked });
        from = cut.at;
      }
      isMarked = cut.isMarked;
      next += 1;
    }
    if (end > from) {
      found.push({ ...piece, text: whole.slice(from, end), isMarked });
    }
    start = end;
  }
  return found;
}
