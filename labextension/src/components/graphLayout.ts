/** Positions of the nodes and lines of a run's graph. Dagre computes them; sizes and line shapes are set here. */

import dagre from '@dagrejs/dagre';

import type { RunNode } from '../model/tokens';

export const NODE_WIDTH = 176;
export const NODE_HEIGHT = 48;
const MARGIN = 16;

export interface IPlacedNode {
  node: RunNode;
  /** The upper left corner. */
  x: number;
  y: number;
}

export interface ILine {
  from: string;
  to: string;
  /** For a `path` element: only numbers and letters written here, nothing of a node's name. */
  path: string;
}

export interface ILayout {
  nodes: IPlacedNode[];
  lines: ILine[];
  width: number;
  height: number;
}

/** Left to right, parents before children. Nodes come in reading order: by column, then from the top. */
export function layOut(nodes: readonly RunNode[]): ILayout {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: 'LR', nodesep: 24, ranksep: 56, marginx: MARGIN, marginy: MARGIN });
  graph.setDefaultEdgeLabel(() => ({}));
  // Dagre keeps nodes in plain objects, in which a key such as `constructor` exists from the start: so nodes get keys of ours.
  const keys = new Map(nodes.map((node, index) => [node.name, `n${index}`]));
  const byKey = new Map(nodes.map((node, index) => [`n${index}`, node]));
  for (const key of byKey.keys()) {
    graph.setNode(key, { width: NODE_WIDTH, height: NODE_HEIGHT });
  }
  for (const [key, node] of byKey) {
    for (const parent of node.after) {
      const from = keys.get(parent);
      if (from !== undefined) {
        graph.setEdge(from, key);
      }
    }
  }
  dagre.layout(graph);
  const placed = [...byKey].map(([key, node]) => {
    const { x, y } = graph.node(key);
    return { node, x: x - NODE_WIDTH / 2, y: y - NODE_HEIGHT / 2 };
  });
  placed.sort((a, b) => a.x - b.x || a.y - b.y);
  const lines = graph.edges().map(edge => {
    const from = graph.node(edge.v);
    const to = graph.node(edge.w);
    // Dagre ends a line where it meets the box, possibly at a corner; these start and end at the middle of a side.
    const start = { x: from.x + NODE_WIDTH / 2, y: from.y };
    const end = { x: to.x - NODE_WIDTH / 2, y: to.y };
    const between = graph.edge(edge).points.filter(point => point.x > start.x + 1 && point.x < end.x - 1);
    const points = [start, ...between, end];
    return { from: byKey.get(edge.v)!.name, to: byKey.get(edge.w)!.name, path: curve(points) };
  });
  const size = graph.graph();
  return { nodes: placed, lines, width: Math.ceil(size.width ?? 0), height: Math.ceil(size.height ?? 0) };
}

/** A curve through all points that starts and ends horizontally. */
function curve(points: readonly { x: number; y: number }[]): string {
  const [first, ...rest] = points;
  if (first === undefined) {
    return '';
  }
  let path = `M${round(first.x)},${round(first.y)}`;
  let last = first;
  for (const point of rest) {
    const middle = (last.x + point.x) / 2;
    path += ` C${round(middle)},${round(last.y)} ${round(middle)},${round(point.y)} ${round(point.x)},${round(point.y)}`;
    last = point;
  }
  return path;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
