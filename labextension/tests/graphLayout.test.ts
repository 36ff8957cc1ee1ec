import { describe, expect, it } from 'vitest';

import { layOut, NODE_HEIGHT, NODE_WIDTH } from '../src/components/graphLayout';
import type { RunNode } from '../src/model/tokens';

const node = (name: string, ...after: string[]): RunNode => ({
  name,
  after,
  phase: 'Pending',
  reason: '',
  job_id: null,
  started_at: null,
  ended_at: null
});

describe('a graph', () => {
  it('goes from left to right', () => {
    const { nodes } = layOut([node('c', 'b'), node('b', 'a'), node('a')]);
    expect(nodes.map(placed => placed.node.name)).toEqual(['a', 'b', 'c']);
    expect(nodes[0]!.x + NODE_WIDTH).toBeLessThan(nodes[1]!.x);
  });

  it('lays no node over another, and all inside', () => {
    const names = Array.from({ length: 60 }, (_, index) => `n${index}`);
    const all = names.map((name, index) => node(name, ...(index > 2 ? [names[index % 3]!, names[index - 3]!] : [])));
    const { nodes, width, height } = layOut(all);
    for (const a of nodes) {
      expect(a.x >= 0 && a.y >= 0 && a.x + NODE_WIDTH <= width && a.y + NODE_HEIGHT <= height).toBe(true);
      for (const b of nodes) {
        const isApart = Math.abs(a.x - b.x) >= NODE_WIDTH || Math.abs(a.y - b.y) >= NODE_HEIGHT;
        expect(a === b || isApart).toBe(true);
      }
    }
  });

  it('has a line for each parent, from side to side', () => {
    const { lines } = layOut([node('a'), node('b'), node('c', 'a', 'b')]);
    expect(lines.map(line => `${line.from} ${line.to}`).sort()).toEqual(['a c', 'b c']);
    expect(lines.every(line => /^M[\d.,]+( C[\d., ]+)+$/.test(line.path))).toBe(true);
  });

  it('does without a parent that is not there, and with names of any kind', () => {
    const odd = 'constructor';
    const { nodes, lines } = layOut([node(odd), node('__proto__', odd), node('"><script>', 'missing')]);
    expect(nodes.length).toBe(3);
    expect(lines.length).toBe(1);
  });

  it('of no node is empty', () => {
    expect(layOut([]).nodes).toEqual([]);
  });
});
