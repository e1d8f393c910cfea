/** A run that has not begun. */

import type { FormSettings } from "../lib/settings";
import { keptCurves } from "../lib/history";
import { Series } from "../lib/series";
import { get, type Run } from "../state";

/** Colours that curves can have. */
const COLOURS = 6;

let numbered = 0;

/** A run of the loaded base. `id` is that of one which an earlier visit left. */
export function newRun(settings: FormSettings, rows: Run["rows"], id?: string): Run {
  const { info, source } = get().base;
  numbered += 1;
  return {
    id: id ?? `run-${Date.now().toString(36)}-${numbered}`,
    name: `${numbered} · ${String(settings["method"] ?? "lora")}`,
    colour: (numbered - 1) % COLOURS,
    shown: true,
    state: "starting",
    settings,
    config: settings,
    base: { name: info?.name ?? "", hash: info?.contentHash ?? "", source: source ?? { embedded: true } },
    rows,
    step: 0,
    total: get().plan.plan?.steps ?? 0,
    trainable: get().plan.plan?.trainable ?? 0,
    plannedBytes: get().plan.plan?.totalBytes ?? 0,
    usedBytes: 0,
    wasmBytes: 0,
    series: id === undefined ? new Series() : keptCurves(id),
    log: [],
    savedStep: 0,
    startedAt: Date.now(),
    seconds: 0,
    clock: 0,
    firstStep: null,
    stepSeconds: null,
    adapter: null,
    best: null,
    bestStep: null,
    exact: null,
    problem: null,
    job: null,
  };
}

/** A job of a set: what it is saved under begins with the set. */
export function newJob(set: string, name: string, group: string | null, settings: FormSettings, rows: Run["rows"], kept = false): Run {
  const id = `${set}/${name}`;
  const run = newRun(settings, rows, kept ? id : undefined);
  const job = { set, name, group, reason: "", secondsLeft: null, best: false };
  return { ...run, id, name, state: "waiting", total: 0, job };
}
