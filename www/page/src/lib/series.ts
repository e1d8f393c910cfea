/** What a run measured, step by step, kept in columns that charts read as they are. */

import { count, loss, percent, short } from "./format";
import { Routers } from "./routers";

/** One measured quantity; the charts and the tables are made from this list. */
export interface Metric {
  key: MetricKey;
  label: string;
  unit: string;
  format(x: number): string;
}

export type MetricKey = "loss" | "eval" | "accuracy" | "ce" | "balance" | "lr" | "grad" | "speed";

export const METRICS: Record<MetricKey, Metric> = {
  loss: { key: "loss", label: "Training loss", unit: "nats per token", format: loss },
  eval: { key: "eval", label: "Held-out loss", unit: "nats per token", format: loss },
  accuracy: { key: "accuracy", label: "Right choices", unit: "of the held-out rows", format: percent },
  ce: { key: "ce", label: "Cross-entropy", unit: "nats per token", format: loss },
  balance: { key: "balance", label: "Balance loss", unit: "before its coefficient", format: short },
  lr: { key: "lr", label: "Learning rate", unit: "", format: short },
  grad: { key: "grad", label: "Gradient norm", unit: "unclipped", format: short },
  speed: { key: "speed", label: "Speed", unit: "tokens/s", format: count },
};

type Column = (number | null)[];

/** A run's measurements. Steps ascend; a held-out loss may stand at a step of its own (before the first, for one). */
export class Series {
  readonly step: number[] = [];
  readonly columns: Record<MetricKey, Column> = { loss: [], eval: [], accuracy: [], ce: [], balance: [], lr: [], grad: [], speed: [] };
  readonly knots: { step: number; link: number; jump: number }[] = [];
  /** Mean size of the learnable scale of every module, at the steps where it was asked for. */
  readonly modules: { step: number; scales: number[] }[] = [];
  /** What routers did in the last steps. */
  readonly routers = new Routers();
  /** Grows with every change; whoever draws compares it. */
  version = 0;

  /** Puts values at a step: a new row at the end, or into the row that is there (a resumed run repeats nothing). */
  put(step: number, values: Partial<Record<MetricKey, number | null>>): void {
    this.cutAfter(step);
    if (this.step.at(-1) !== step) {
      this.step.push(step);
      for (const column of Object.values(this.columns)) column.push(null);
    }
    for (const [key, value] of Object.entries(values)) {
      this.columns[key as MetricKey][this.step.length - 1] = value !== null && Number.isFinite(value) ? value : null;
    }
    this.version += 1;
  }

  /** Puts the scales of the modules at a step. */
  putModules(step: number, scales: number[]): void {
    if (scales.length === 0 || this.modules.at(-1)?.step === step) return;
    this.modules.push({ step, scales });
    this.version += 1;
  }

  /** Forgets what came after a step: a run that goes on from a checkpoint does those steps again. */
  cutAfter(step: number): void {
    let keep = this.step.length;
    while (keep > 0 && (this.step[keep - 1] ?? 0) > step) keep -= 1;
    if (keep === this.step.length) return;
    this.step.length = keep;
    for (const column of Object.values(this.columns)) column.length = keep;
    this.routers.cutAfter(step);
    for (const list of [this.knots, this.modules]) while ((list.at(-1)?.step ?? -1) > step) list.pop();
    this.version += 1;
  }

  /** The last value of a quantity. */
  last(key: MetricKey): number | null {
    return this.columns[key].findLast((value) => value !== null) ?? null;
  }

  /** The first value of a quantity. */
  first(key: MetricKey): number | null {
    return this.columns[key].find((value) => value !== null) ?? null;
  }

  /** The mean of the last `n` values of a quantity. */
  recent(key: MetricKey, n: number): number | null {
    const values = this.columns[key].slice(-n).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  }
}

/** At most `limit` rows of a series, the last one included: canvases have no more pixels and tables no more readers. */
export function thin(length: number, limit: number): number[] {
  const stride = Math.max(1, Math.ceil(length / limit));
  const rows: number[] = [];
  for (let i = (length - 1) % stride; i < length; i += stride) rows.push(i);
  return rows;
}

/** The mean over a window around each value, so that the curve does not lag behind what it smooths; gaps stay gaps. */
export function smooth(values: (number | null)[]): (number | null)[] {
  const half = Math.max(1, Math.round(values.length / 60));
  return values.map((value, at) => {
    if (value === null) return null;
    // As far to the left as to the right, or the ends would be bent.
    const reach = Math.min(half, at, values.length - 1 - at);
    const window = values.slice(at - reach, at + reach + 1).filter((each) => each !== null);
    return window.reduce((sum, each) => sum + each, 0) / window.length;
  });
}
