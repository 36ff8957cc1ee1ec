import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';

import { keptText, overtakenText, passedText } from '../src/text/waits';
import { waiting } from './builders';

const trans = nullTranslator.load('tuttilab');
const NOW = 1_700_000_000;
const passed = {
  job: "job 'prep' (aaaabbbb) of ben",
  promise: 'was predicted to end before its start',
  started_at: NOW - 60,
  kept_start: NOW + 600,
  ends_by: null,
  ended_at: null,
  nodes: ['n3'],
  must_end: true
};

describe('what is held for a job that waits', () => {
  it('names nodes, cluster and time', () => {
    const kept = { cluster: 'gpu', nodes: ['n3', 'n5'], start: NOW - 1, trusts: 'predictions' };
    expect(keptText(kept, NOW, trans)).toBe('Kept for it: n3, n5 on cluster gpu, from now on.');
    expect(keptText({ ...kept, nodes: [] }, NOW, trans)).toBe(
      'Room on cluster gpu is kept for it from now on, when others have left it.'
    );
  });

  it('says which job was started past it by which promise, and when that was not kept', () => {
    expect(passedText(passed, NOW, trans)).toMatch(
      /^job 'prep' \(aaaabbbb\) of ben at .+ on n3: was predicted to end before its start$/
    );
    expect(passedText(passed, NOW + 601, trans)).toMatch(/, and was too late$/);
    expect(passedText({ ...passed, ended_at: NOW }, NOW + 601, trans)).toMatch(/before its start$/);
    expect(passedText({ ...passed, must_end: false }, NOW + 601, trans)).toMatch(/before its start$/);
  });

  it('says how far later jobs overtook it', () => {
    const wait = { ...waiting('a', 1).wait!, overtaken_s: 120, allowed_s: 1860 };
    expect(overtakenText(wait, trans)).toMatch(/^Jobs submitted later used as much as all of the site for .+; it goes before them from .+ on\.$/);
    expect(overtakenText({ ...wait, is_protected: true }, trans)).toMatch(/; so it goes before them now\.$/);
  });
});
