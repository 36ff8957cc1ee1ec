/** Python with Spark SQL in it, and variables of the notebook (`:name`) in the SQL. */

import { LRLanguage } from '@codemirror/language';
import { type Input, NodeType, type PartialParse, Parser, parseMixed, Tree, type TreeFragment } from '@lezer/common';
import { styleTags, tags } from '@lezer/highlight';

import { LONGEST_LOOKED_AT, sqlRanges } from './sqlPlaces';
import { SparkSQL } from './sparkDialect';

/** `a:b` is a field, `a::int` a cast (magics/spark/sql.py). */
const VARIABLE = /^:[\p{L}_][\p{L}\p{N}_]*$/u;
const TOUCHES = /[\w)\]`'"]/;

const MARKER = NodeType.define({
  id: 1,
  name: 'Marker',
  top: true,
  props: [styleTags({ Marker: tags.special(tags.variableName) })]
});

/** Text that is one node. */
class OneNode extends Parser {
  override createParse(_: Input, __: readonly TreeFragment[], ranges: readonly { from: number; to: number }[]): PartialParse {
    const from = ranges[0]?.from ?? 0;
    const to = ranges[ranges.length - 1]?.to ?? from;
    return { parsedPos: to, stoppedAt: null, stopAt: () => undefined, advance: () => new Tree(MARKER, [], [], to - from) };
  }
}

const marker = new OneNode();

const sql = SparkSQL.language.parser.configure({
  wrap: parseMixed((node, input) => {
    if (node.name !== 'SpecialVar' || !VARIABLE.test(input.read(node.from, node.to))) {
      return null;
    }
    return node.from > 0 && TOUCHES.test(input.read(node.from - 1, node.from)) ? null : { parser: marker };
  })
});

/** `outer`: Python, which everything else stays. */
export function mixedOf(outer: LRLanguage): LRLanguage {
  return outer.configure({
    wrap: parseMixed((node, input) => {
      if (!node.type.isTop) {
        return null;
      }
      const top = node.node;
      const text = input.read(0, Math.min(input.length, LONGEST_LOOKED_AT));
      // A line of a text is no magic.
      const isCode = (at: number): boolean => !/String|Comment/.test(top.resolve(at, 1).name);
      const overlay = sqlRanges(text, node.to).filter(range => range.magic === 0 || isCode(range.magic));
      return overlay.length > 0 ? { parser: sql, overlay: overlay.map(({ from, to }) => ({ from, to })) } : null;
    })
  });
}
