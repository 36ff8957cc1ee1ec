/** A titled part of a job's page. */

import * as React from 'react';

export function Section(props: { title: string; children: React.ReactNode; note?: string }): React.JSX.Element {
  return (
    <section className="tl-Part" aria-label={props.title}>
      <h2 className="tl-Part-title">
        {props.title} {props.note && <span className="tl-Part-note">{props.note}</span>}
      </h2>
      {props.children}
    </section>
  );
}

/** A name, a value and a class; `tl-mod-wide` takes a line of its own. */
type Pair = readonly [string, React.ReactNode, string?];

/** A list of names and values, in as many columns as there is room for. */
export function Pairs({ pairs }: { pairs: readonly (Pair | null)[] }): React.JSX.Element {
  return (
    <dl className="tl-Pairs">
      {pairs.map(
        pair =>
          pair !== null && (
            <div key={pair[0]} className={pair[2]}>
              <dt>{pair[0]}</dt>
              <dd>{pair[1]}</dd>
            </div>
          )
      )}
    </dl>
  );
}
