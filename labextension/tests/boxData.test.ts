import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import { countPhases, endedJobTexts, endedMapTexts, jobFacts, newestOfEach, parseBox } from '../src/components/box/boxData';
import { job, waiting } from './builders';

const trans = nullTranslator.load('tuttilab');
const data = { version: 1, id: '3f2a9c12wxyz', name: 'train', phase: 'Running', is_ended: false, at: 100 };

describe('the data of a box', () => {
  it('is read', () => {
    expect(parseBox(data)).toMatchObject({ id: '3f2a9c12wxyz', name: 'train', phase: 'Running', isEnded: false, stem: '' });
  });

  it.each([
    ['of another version', { ...data, version: 2 }],
    ['with an id that is a path', { ...data, id: '../../api/kernels' }],
    ['without an id', { ...data, id: undefined }],
    ['that is a list', [data]],
    ['that is nothing', null]
  ])('%s is not taken', (_, given) => {
    expect(parseBox(given)).toBeNull();
  });

  it('is cut where it is too long', () => {
    expect(parseBox({ ...data, name: 'x'.repeat(10_000) })!.name.length).toBe(200);
  });
});

describe('the first line of a box', () => {
  it('says for how long and since when a job runs', () => {
    const facts = jobFacts(job('a', { started_at: 1000 }), 1012, trans);
    expect(facts).toHaveLength(1);
    expect(facts[0]).toMatch(/^12 s, since .*\d\d:\d\d$/);
  });

  it('says why a job waits, and how it ended', () => {
    expect(jobFacts(waiting('a', 2), 110, trans)[0]).toBe('place 2 · it waits');
    const failed = job('a', { phase: 'Failed', is_ended: true, ended_at: 103, reason: 'it exited with code 1' });
    expect(jobFacts(failed, 200, trans).slice(0, 2)).toEqual(['it exited with code 1', '2 s']);
  });
});

describe('a map', () => {
  it('counts of an element that ran again the newest job', () => {
    const of = (element: string, phase: string, created_at: number) => job(`${element}-${created_at}`, { labels: { element }, phase, created_at });
    const jobs = newestOfEach([of('0', 'Failed', 1), of('1', 'Succeeded', 1), of('0', 'Succeeded', 2)]);
    expect(countPhases(jobs)).toEqual(new Map([['Succeeded', 2]]));
  });
});

describe('a notebook whose kernel did not see the end', () => {
  const html = '<div>sent x</div><div class="tuttilab-box-head"><b>job 3f2a9c12 &#x27;train&#x27;</b>: Running <small>(4 s)</small></div><pre>a</pre>';
  const plain = "sent x\njob 3f2a9c12 'train': Running (4 s)\n  | a";

  it('gets the end of a job and keeps the lines', () => {
    const ended = job('3f2a9c12wxyz', { phase: 'Failed', is_ended: true, started_at: 100, ended_at: 165, reason: 'it exited with <b>' });
    const texts = endedJobTexts({ html, plain }, parseBox(data)!, ended);
    expect(texts.plain).toBe("sent x\njob 3f2a9c12 'train': Failed, it exited with <b> (1 min 05 s)\n  | a");
    expect(texts.html).toContain('Failed, it exited with &lt;b&gt; <small>(1 min 05 s)</small></div><pre>a</pre>');
    expect(texts.html).not.toContain('Running');
  });

  it('gets the end of a map', () => {
    const bar = `${'█'.repeat(5)}${'░'.repeat(15)}`;
    const head = '<div class="tuttilab-box-head"><progress max="4" value="1"></progress> 1 of 4</div>';
    const texts = endedMapTexts({ html: head, plain: `${bar} 1 of 4 elements done` }, new Map([['Succeeded', 3], ['Failed', 1]]));
    expect(texts.plain).toBe(`${'█'.repeat(20)} 4 of 4 elements done: 1 Failed, 3 Succeeded`);
    expect(texts.html).toContain('4 of 4 elements done: 1 Failed, 3 Succeeded</div>');
  });
});
