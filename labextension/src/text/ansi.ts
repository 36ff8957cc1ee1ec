/** Parses a log line with terminal colours into pieces of text. Pieces become text nodes: log text is never markup. */

export interface IStyle {
  /** Index 0 to 15 of the theme's palette, or a CSS colour made of numbers. */
  fg?: number | string;
  bg?: number | string;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  inverse?: boolean;
}

export interface IPiece {
  text: string;
  style: IStyle;
  /** An http or https address, the piece's own text. */
  href?: string;
}

/* Control sequences, then operating system commands (titles, links) with their end, then shorter ones; also one cut off at the end. */
const SEQUENCE = /\u001b(?:\[([0-9;:?<=>!]*)[ -/]*([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\|$)|[PX^_][^\u001b]*(?:\u001b\\|$)|[ -/]*[0-~]|\[?[0-9;:?]*$)/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
/* Without characters that are not seen or turn those around them: an address is what is read. */
const ADDRESS = /https?:\/\/[^\s<>"'`\u0000-\u0020\p{Cf}]+/gu;
const LINE_LIMIT = 8192;

/** The pieces of one line, and the style in which the next line begins. */
export function parseLine(line: string, start: IStyle = {}): { pieces: IPiece[]; end: IStyle } {
  const text = afterCarriageReturn(line).slice(0, LINE_LIMIT);
  const pieces: IPiece[] = [];
  let style = start;
  let last = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    push(pieces, text.slice(last, match.index), style);
    last = match.index + match[0].length;
    if (match[2] === 'm') {
      style = restyle(style, match[1] ?? '');
    }
  }
  push(pieces, text.slice(last), style);
  return { pieces, end: style };
}

/** Without colours, as it is copied or searched. */
export function plain(line: string): string {
  return afterCarriageReturn(line).replace(SEQUENCE, '').replace(CONTROLS, '');
}

/** The text after the last carriage return: a progress bar's last state. */
function afterCarriageReturn(line: string): string {
  const ended = line.replace(/\r+$/, '');
  return ended.slice(ended.lastIndexOf('\r') + 1);
}

function push(pieces: IPiece[], raw: string, style: IStyle): void {
  const text = raw.replace(CONTROLS, '');
  let last = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const href = match[0].replace(/[.,;:!?)\]}]+$/, '');
    if (match.index > last) {
      pieces.push({ text: text.slice(last, match.index), style });
    }
    pieces.push({ text: href, style, href });
    last = match.index + href.length;
  }
  if (last < text.length) {
    pieces.push({ text: text.slice(last), style });
  }
}

function restyle(before: IStyle, parameters: string): IStyle {
  const codes = parameters.split(/[;:]/).map(code => (code === '' ? 0 : Number(code)));
  let style: IStyle = { ...before };
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index]!;
    if (code === 0) {
      style = {};
    } else if (code === 1) {
      style.bold = true;
    } else if (code === 2) {
      style.dim = true;
    } else if (code === 3) {
      style.italic = true;
    } else if (code === 4) {
      style.underline = true;
    } else if (code === 7) {
      style.inverse = true;
    } else if (code === 22) {
      delete style.bold;
      delete style.dim;
    } else if (code === 23) {
      delete style.italic;
    } else if (code === 24) {
      delete style.underline;
    } else if (code === 27) {
      delete style.inverse;
    } else if (code === 39) {
      delete style.fg;
    } else if (code === 49) {
      delete style.bg;
    } else if (code >= 30 && code <= 37) {
      style.fg = code - 30;
    } else if (code >= 40 && code <= 47) {
      style.bg = code - 40;
    } else if (code >= 90 && code <= 97) {
      style.fg = code - 90 + 8;
    } else if (code >= 100 && code <= 107) {
      style.bg = code - 100 + 8;
    } else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(index + 1));
      index += used;
      if (colour !== null) {
        style[code === 38 ? 'fg' : 'bg'] = colour;
      }
    }
  }
  return style;
}

/** `5;n` of 256 colours or `2;r;g;b`: the colour and how many codes it took. */
function extended(codes: number[]): [number | string | null, number] {
  if (codes[0] === 5) {
    const index = codes[1];
    return [index !== undefined && isByte(index) ? indexed(index) : null, 2];
  }
  if (codes[0] === 2) {
    const rgb = codes.slice(1, 4);
    return [rgb.length === 3 && rgb.every(isByte) ? `rgb(${rgb.join(',')})` : null, 4];
  }
  return [null, codes.length];
}

function indexed(index: number): number | string {
  if (index < 16) {
    return index;
  }
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return `rgb(${grey},${grey},${grey})`;
  }
  const level = (step: number): number => (step === 0 ? 0 : 55 + step * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))},${level(Math.floor(cube / 6) % 6)},${level(cube % 6)})`;
}

function isByte(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 255;
}
