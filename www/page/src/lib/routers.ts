/** What the routers of a MixLoRA run did in its last steps. */

import type { RouterReport } from "weblora";

/** Steps that the heat map is the mean of: one step's few tokens say little. */
const LAST = 20;

/** The last steps together. */
export interface RouterMean {
  steps: number;
  /** Experts that a token gets. */
  perToken: number;
  /** The layer that uses the fewest experts. */
  worst: number;
  blocks: { layer: number; load: number[]; entropy: number; inUse: number }[];
}

/** The reports of the last steps. */
export class Routers {
  readonly #reports: { step: number; report: RouterReport }[] = [];

  put(step: number, report: RouterReport): void {
    this.cutAfter(step - 1);
    this.#reports.push({ step, report });
    if (this.#reports.length > LAST) this.#reports.shift();
  }

  /** Forgets what came after a step. */
  cutAfter(step: number): void {
    while ((this.#reports.at(-1)?.step ?? -1) > step) this.#reports.pop();
  }

  /** What is kept with the curves of a run. */
  last(): { step: number; report: RouterReport }[] {
    return this.#reports.slice(-1);
  }

  /** Their mean, or `null` where there are none. */
  mean(): RouterMean | null {
    const last = this.#reports.at(-1)?.report;
    const reports = this.#reports.map(({ report }) => report).filter((report) => report.layers.length === last?.layers.length);
    if (!last || last.layers.length === 0) return null;
    const mean = (of: (report: RouterReport) => number) => reports.reduce((sum, report) => sum + of(report), 0) / reports.length;
    const blocks = last.layers.map((layer, i) => {
      const load = (last.load[i] ?? []).map((_, expert) => mean((report) => report.load[i]?.[expert] ?? 0));
      return { layer, load, entropy: mean((report) => report.entropy[i] ?? 0), inUse: inUse(load) };
    });
    const perToken = blocks.reduce((sum, { load }) => sum + load.reduce((a, b) => a + b, 0), 0) / blocks.length;
    const worst = blocks.reduce((a, b) => (b.inUse < a.inUse ? b : a)).layer;
    return { steps: reports.length, perToken, worst, blocks };
  }
}

/** Experts in use: e to the entropy of their shares. One where one takes everything, all where they share alike. */
export function inUse(load: number[]): number {
  const total = load.reduce((sum, share) => sum + share, 0);
  if (total <= 0) return 0;
  return Math.exp(load.reduce((sum, share) => (share > 0 ? sum - (share / total) * Math.log(share / total) : sum), 0));
}
