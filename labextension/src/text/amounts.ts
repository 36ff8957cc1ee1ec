/** Sizes and CPU as text, and a command as one would type it. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `812 MiB`, `1.5 GiB`: three digits at most, in the units in which memory is asked for. */
export function bytes(size: number): string {
  let amount = size;
  let unit = 0;
  while (amount >= 999.5 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const isRound = unit === 0 || amount >= 99.95 || Number.isInteger(amount);
  return `${isRound ? amount.toFixed(0) : amount.toFixed(1)} ${UNITS[unit]!}`;
}

/** `0.25`, `1.9`, `12`. */
export function cores(amount: number): string {
  return Number(amount.toFixed(amount < 1 ? 2 : 1)).toString();
}

/** The words of a command, quoted as a shell needs them. */
export function commandLine(words: readonly string[]): string {
  return words.map(word => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, `'\\''`)}'`)).join(' ');
}
