/** CPU and memory over time of the pods of the newest attempt: two charts, and the same as a table. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IModel, Job, PodUsage, Usage } from '../../model/tokens';
import { bytes, cores } from '../../text/amounts';
import { summaryOf } from '../../text/usage';
import { Chart, SERIES } from './chart';
import { Section } from './section';

const EVERY_MS = 5000;
/** While there is no curve yet. */
const FIRST_MS = 2000;
/** Fewer points are no curve; the table says it all. */
const FEWEST_POINTS = 3;
const CPU_STEPS = [0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256];
const MEMORY_STEPS = Array.from({ length: 35 }, (_, power) => 1024 * 2 ** power);

interface IProps {
  job: Job;
  /** Whether the page is on screen: else nothing is fetched. */
  isShown: boolean;
  model: IModel;
  trans: TranslationBundle;
}

export function UsageSection({ job, isShown, model, trans }: IProps): React.JSX.Element | null {
  const usage = useUsage(model, job, isShown);
  const pods = usage?.pods.filter(pod => pod.seconds.length > 0) ?? [];
  if (usage === null || pods.length === 0) {
    return null;
  }
  const name = (pod: PodUsage): string => trans.__('%1 %2', pod.role, pod.rank);
  const cpuText = (pod: PodUsage): string => {
    const sum = summaryOf(pod);
    return trans.__('%1 of %2 cores on average, at most %3', cores(sum.meanCpus), cores(pod.asked_cpus), cores(sum.peakCpus));
  };
  const memoryText = (pod: PodUsage): string =>
    trans.__('%1 of %2 at most', bytes(pod.peak_memory), bytes(pod.asked_memory));
  const tell = (what: string, text: (pod: PodUsage) => string): string =>
    `${what}: ${pods.map(pod => `${name(pod)}: ${text(pod)}`).join('; ')}`;
  return (
    <Section
      title={trans.__('CPU and memory')}
      note={usage.total > usage.pods.length ? trans.__('the first %1 of %2 pods', usage.pods.length, usage.total) : ''}
    >
      {pods.some(pod => pod.seconds.length >= FEWEST_POINTS) && (
        <>
          <h3 className="tl-Chart-title">{trans.__('CPU, cores')}</h3>
          <Chart
            label={tell(trans.__('CPU, cores'), cpuText)}
            curves={pods.map(pod => ({ rank: pod.rank, times: timesOf(pod), values: pod.cpus }))}
            asked={common(pods.map(pod => pod.asked_cpus))}
            format={cores}
            steps={CPU_STEPS}
          />
          <h3 className="tl-Chart-title">{trans.__('Memory')}</h3>
          <Chart
            label={tell(trans.__('Memory'), memoryText)}
            curves={pods.map(pod => ({ rank: pod.rank, times: timesOf(pod), values: pod.memory }))}
            asked={common(pods.map(pod => pod.asked_memory))}
            format={bytes}
            steps={MEMORY_STEPS}
          />
        </>
      )}
      <UsageTable pods={pods} name={name} trans={trans} />
    </Section>
  );
}

function UsageTable(props: { pods: readonly PodUsage[]; name: (pod: PodUsage) => string; trans: TranslationBundle }): React.JSX.Element {
  const { pods, name, trans } = props;
  return (
    <div className="tl-Table-scroll">
      <table className="tl-Table">
        <thead>
          <tr>
            <th scope="col">{trans.__('Pod')}</th>
            <th scope="col">{trans.__('CPU, mean')}</th>
            <th scope="col">{trans.__('peak')}</th>
            <th scope="col">{trans.__('asked')}</th>
            <th scope="col">{trans.__('Memory, mean')}</th>
            <th scope="col">{trans.__('peak')}</th>
            <th scope="col">{trans.__('asked')}</th>
          </tr>
        </thead>
        <tbody>
          {pods.map(pod => {
            const sum = summaryOf(pod);
            return (
              <tr key={pod.pod}>
                <th scope="row">
                  <span className={`tl-Swatch tl-series-${pod.rank % SERIES}`} aria-hidden="true" />
                  {name(pod)}
                </th>
                <td className="tl-mod-number">{cores(sum.meanCpus)}</td>
                <td className="tl-mod-number">{cores(sum.peakCpus)}</td>
                <td className="tl-mod-number">{cores(pod.asked_cpus)}</td>
                <td className="tl-mod-number">{bytes(sum.meanMemory)}</td>
                <td className="tl-mod-number">{bytes(sum.peakMemory)}</td>
                <td className="tl-mod-number">{bytes(pod.asked_memory)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function useUsage(model: IModel, job: Job, isShown: boolean): Usage | null {
  const [usage, setUsage] = React.useState<Usage | null>(null);
  const attempt = job.attempts[job.attempts.length - 1];
  const number = attempt?.number ?? 0;
  const isLive = attempt !== undefined && attempt.ended_at === null;
  React.useEffect(() => {
    if (number === 0 || !isShown) {
      return undefined;
    }
    let isCurrent = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const fetch = async (): Promise<void> => {
      let pause = FIRST_MS;
      try {
        const found = await model.usage(job.id, number);
        if (isCurrent) {
          setUsage(found);
        }
        pause = found.pods.some(pod => pod.seconds.length >= FEWEST_POINTS) ? EVERY_MS : FIRST_MS;
      } catch {
        // A service that does not answer is said in the panel; the curves wait for the next time.
        pause = EVERY_MS;
      }
      if (isCurrent && isLive) {
        timer = setTimeout(() => void fetch(), pause);
      }
    };
    void fetch();
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [model, job.id, number, isLive, isShown]);
  return usage;
}

function timesOf(pod: PodUsage): number[] {
  return pod.seconds.map(second => pod.started_at + second);
}

/** The value that all have; 0 when they differ. */
function common(values: readonly number[]): number {
  return values.every(value => value === values[0]) ? (values[0] ?? 0) : 0;
}
