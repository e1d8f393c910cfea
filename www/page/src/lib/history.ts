/** The curves of unfinished runs, kept so that a resumed run's charts begin where the run did. */

import type { RouterReport } from "weblora";
import { Series, thin, type MetricKey } from "./series";
import { readPreference, writePreference } from "./theme";

const PREFIX = "weblora.curves.";
/** Kept points of a curve; storage of this kind is small. */
const POINTS = 600;

interface Kept {
  step: number[];
  columns: Partial<Record<MetricKey, (number | null)[]>>;
  knots: Series["knots"];
  modules?: Series["modules"];
  routers?: { step: number; report: RouterReport }[];
}

/** Keeps a run's curves. */
export function keepCurves(id: string, series: Series): void {
  const rows = thin(series.step.length, POINTS);
  const pick = (column: (number | null)[]) => rows.map((i) => column[i] ?? null);
  const columns = Object.fromEntries(Object.entries(series.columns).map(([key, column]) => [key, pick(column)])) as Kept["columns"];
  const kept: Kept = { step: rows.map((i) => series.step[i] ?? 0), columns, knots: series.knots, modules: thin(series.modules.length, POINTS).flatMap((i) => series.modules[i] ?? []), routers: series.routers.last() };
  writePreference(PREFIX + id, JSON.stringify(kept));
}

/** A run's curves up to a step; empty when none were kept. */
export function keptCurves(id: string): Series {
  const series = new Series();
  try {
    const kept = JSON.parse(readPreference(PREFIX + id) ?? "null") as Kept | null;
    kept?.step.forEach((step, i) => {
      series.put(step, Object.fromEntries(Object.entries(kept.columns).map(([key, column]) => [key, column[i] ?? null])));
    });
    series.knots.push(...(kept?.knots ?? []));
    series.modules.push(...(kept?.modules ?? []));
    for (const { step, report } of kept?.routers ?? []) series.routers.put(step, report);
  } catch {
    // Of another version of this page: the charts begin anew.
  }
  return series;
}

/** Forgets a run's curves. */
export function dropCurves(id: string): void {
  writePreference(PREFIX + id, null);
}
