import { describe, expect, it } from 'vitest';

import { pagesPath, sessionOf } from '../src/tables/pages';

describe('a session whose pages an output names', () => {
  it('is linked below the server', () => {
    expect(sessionOf({ version: 1, session: 'wide.2' })).toBe('wide.2');
    expect(pagesPath('wide.2')).toBe('tuttilab/spark/wide.2/ui');
  });

  it.each([null, 'wide', {}, { version: 2, session: 'wide' }, { version: 1 }, { version: 1, session: '../../api/kernels' }])(
    'is none in %j',
    data => {
      expect(sessionOf(data)).toBeNull();
    }
  );
});
