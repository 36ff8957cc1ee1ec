import { describe, expect, it } from 'vitest';

import { parseLine, plain } from '../src/text/ansi';

const ESC = '\u001b';
const texts = (line: string): string[] => parseLine(line).pieces.map(piece => piece.text);

describe('a log line', () => {
  it('without colours is one piece', () => {
    expect(parseLine('step 1 <b>loss</b>').pieces).toEqual([{ text: 'step 1 <b>loss</b>', style: {} }]);
  });

  it('has the colours that it says', () => {
    const { pieces } = parseLine(`${ESC}[1;31mred${ESC}[0m plain ${ESC}[92mgreen${ESC}[39m`);
    expect(pieces).toEqual([
      { text: 'red', style: { bold: true, fg: 1 } },
      { text: ' plain ', style: {} },
      { text: 'green', style: { fg: 10 } }
    ]);
  });

  it('has 256 colours and all colours', () => {
    expect(parseLine(`${ESC}[38;5;196mx`).pieces[0]!.style.fg).toBe('rgb(255,0,0)');
    expect(parseLine(`${ESC}[48;2;1;2;3mx`).pieces[0]!.style.bg).toBe('rgb(1,2,3)');
    expect(parseLine(`${ESC}[38;5;244mx`).pieces[0]!.style.fg).toBe('rgb(128,128,128)');
  });

  it('that sets a colour sets it for the next one', () => {
    const { end } = parseLine(`${ESC}[33mwarn`);
    expect(parseLine('goes on', end).pieces).toEqual([{ text: 'goes on', style: { fg: 3 } }]);
  });

  it.each([
    ['a colour that is none', `${ESC}[38;2;300;0;0;mx`],
    ['a colour with words', `${ESC}[38;2;url(x)mx`],
    ['cursor moves', `${ESC}[2K${ESC}[1Gx`],
    ['a window title', `${ESC}]0;title\u0007x`],
    ['a link', `${ESC}]8;;javascript:alert(1)${ESC}\\x${ESC}]8;;${ESC}\\`],
    ['a device string', `${ESC}Pq#0${ESC}\\x`],
    ['control characters', 'x\u0000\u0008\u009b']
  ])('loses %s and keeps the text', (_, line) => {
    const pieces = parseLine(line).pieces;
    expect(pieces.map(piece => piece.text).join('')).toMatch(/^(x|rl\(x\)mx)$/);
    expect(pieces.every(piece => piece.href === undefined)).toBe(true);
    expect(pieces.every(piece => typeof piece.style.fg !== 'string' || /^rgb\(\d+,\d+,\d+\)$/.test(piece.style.fg))).toBe(true);
  });

  it('shows what a carriage return left', () => {
    expect(texts('10%\r50%\r100%')).toEqual(['100%']);
    expect(texts('done\r')).toEqual(['done']);
  });

  it.each(['\u202e', '\u2066', '\u200b', '\u200d', '\u00ad', '\ufeff'])('has no link with %j in it: one reads where it leads', hidden => {
    const { pieces } = parseLine(`https://example.org/${hidden}moc.live`);
    expect(pieces[0]).toEqual({ text: 'https://example.org/', style: {}, href: 'https://example.org/' });
    expect(pieces[1]!.href).toBeUndefined();
    expect(pieces.map(piece => piece.text).join('')).toBe(`https://example.org/${hidden}moc.live`);
  });

  it('has links of http and https only', () => {
    const { pieces } = parseLine('see https://example.org/a?b=1. or javascript:alert(1) or ftp://x');
    expect(pieces.map(piece => piece.href)).toEqual([undefined, 'https://example.org/a?b=1', undefined]);
  });

  it('is cut where it is too long', () => {
    expect(texts('x'.repeat(100_000))[0]!.length).toBe(8192);
  });

  it('is copied without colours', () => {
    expect(plain(`a\r${ESC}[31mred${ESC}[0m!`)).toBe('red!');
  });

  it('of hostile length is read in time', () => {
    const began = Date.now();
    parseLine(`${ESC}[`.repeat(4000));
    parseLine(`${ESC}]`.repeat(4000));
    parseLine('https://'.repeat(1000));
    expect(Date.now() - began).toBeLessThan(500);
  });
});
