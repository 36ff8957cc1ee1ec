import { describe, expect, it } from 'vitest';

import { cellLine, FIRST_FORM, magicOf, notebookLine, quoted } from '../src/entries/line';

describe('the line of a form', () => {
  it('has only what differs', () => {
    expect(cellLine(FIRST_FORM)).toBe('%%submit');
    expect(cellLine({ ...FIRST_FORM, cpus: '4', timeout: ' 2h ', name: 'my job' })).toBe("%%submit --name 'my job' --cpus 4 --timeout 2h");
  });

  it('of a notebook has its path and no workers', () => {
    expect(notebookLine('a b/x.ipynb', { ...FIRST_FORM, workers: '3', gpus: '1' })).toBe("%submit 'a b/x.ipynb' --gpus 1");
  });

  it.each([
    ["it's", `'it'"'"'s'`],
    ['a\nb', "'a b'"],
    ['$(rm x); y', "'$(rm x); y'"]
  ])('has %j as one word', (value, word) => {
    expect(quoted(value)).toBe(word);
  });

  it('is not put above another magic', () => {
    expect(magicOf('\n%%sparksql x\nSELECT 1')).toBe('%%sparksql');
    expect(magicOf('x = 1\n%%time')).toBe('');
  });
});
