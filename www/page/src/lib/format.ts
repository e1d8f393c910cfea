/** Numbers for people: always with a unit, never more digits than are worth reading. */

const integer = new Intl.NumberFormat("en");

/** `12,345`. */
export const count = (n: number): string => integer.format(Math.round(n));

/** `98.4 MB`; decimal units, as file managers and the command line have them. */
export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = n;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `1.08 M`, `134.5 M`, `3.2 B`. */
export function parameters(n: number): string {
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)} B`;
  if (n >= 1e6) return `${(n / 1e6).toFixed(n >= 1e8 ? 0 : 2)} M`;
  return n >= 1e4 ? `${(n / 1e3).toFixed(0)} k` : count(n);
}

/** A share: `0.42 %`, `12 %`. */
export const percent = (share: number): string => `${short(100 * share)} %`;

/** `1 row`, `12 rows`. */
export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;

/** `118 ms`, `43 s`, `2 min 5 s`, `3 h 20 min`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds > 0 && seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
}

/** `just now`, `5 min ago`, `3 days ago`. */
export function ago(time: number, now = Date.now()): string {
  const s = (now - time) / 1000;
  if (s < 60) return "just now";
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return plural(Math.floor(s / 3600), "hour") + " ago";
  return plural(Math.floor(s / 86400), "day") + " ago";
}

/** A loss: four digits after the point, more where it is tiny. */
export function loss(x: number | null | undefined): string {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  return x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toFixed(4);
}

/** `5e-4` and the like, for learning rates and norms. */
export function short(x: number | null | undefined): string {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  if (Math.abs(x) < 1e-2 || Math.abs(x) >= 1e5) return x.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return x.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}
