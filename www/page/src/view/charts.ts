/** The charts of the runs: loss large, the rest small beside each other. */

import { h, show } from "../lib/dom";
import { count, loss, plural, short } from "../lib/format";
import { METRICS, smooth, thin, type MetricKey } from "../lib/series";
import { get, shownRun, watch, type Run } from "../state";
import { expertsView } from "./experts";
import { chart, type Chart, type ChartData, type Line, type Mark } from "./chart";

/** Drawn points of a line; a wide screen has fewer pixels. */
const POINTS = 2000;
const TABLE_ROWS = 60;
/** Milliseconds between two drawings while training. */
const PACE = 250;

/** All charts and their two switches. */
export function chartsView(): HTMLElement {
  const main = chart({ title: "Loss", unit: "nats per token", height: 260, format: loss, fromZero: false });
  const small = (["ce", "balance", "lr", "grad", "speed"] as const).map((key): [MetricKey, Chart] => {
    const { label, unit, format } = METRICS[key];
    return [key, chart({ title: label, unit, height: 120, format, fromZero: true })];
  });
  const modules = chart({ title: "Module scales", unit: "mean |s|", height: 120, format: short, fromZero: true });
  // Hidden until the first drawing says which quantities there are.
  for (const each of [...small.map(([, each]) => each), modules]) show(each.root, false);
  let smoothed = true;
  const options = h(
    "div",
    { class: "row chart-options" },
    legend(),
    toggle("Smooth", smoothed, (on) => {
      smoothed = on;
      draw();
    }),
    toggle("Log scale", false, (on) => main.setLog(on)),
  );
  const root = h("div", { class: "charts", hidden: true }, options, main.root, h("div", { class: "small-charts" }, ...small.map(([, each]) => each.root), modules.root), expertsView());

  // One chart a task: four at once, the first time above all, would hold the page up.
  const draw = () => {
    const runs = get().runs.list.filter((run) => run.shown && run.series.step.length > 0);
    main.set(lossData(runs, smoothed));
    // Only where a run has the quantity.
    const known = small.filter(([key, each]) => {
      const some = runs.some((run) => run.series.last(key) !== null);
      show(each.root, some);
      return some;
    });
    known.forEach(([key, each], i) => setTimeout(() => each.set(metricData(runs, key)), 16 * (i + 1)));
    const watched = shownRun()?.series.modules ?? [];
    show(modules.root, watched.length > 0);
    setTimeout(() => modules.set(moduleData(watched)), 16 * (small.length + 1));
  };
  let due = 0;
  let drawn = "";
  watch(["runs"], () => {
    const { list } = get().runs;
    show(root, list.some((run) => run.series.step.length > 0));
    const now = list.map((run) => `${run.id} ${run.shown} ${run.series.version} ${run.name}`).join();
    if (due || now === drawn) return;
    due = window.setTimeout(() => {
      due = 0;
      drawn = get().runs.list.map((run) => `${run.id} ${run.shown} ${run.series.version} ${run.name}`).join();
      draw();
    }, PACE);
  });
  return root;
}

function legend(): HTMLElement {
  const line = (className: string, text: string) => h("li", {}, h("span", { class: `line ${className}`, "aria-hidden": "true" }), text);
  return h("ul", { class: "legend" }, line("solid", "training"), line("dashed", "held out"), line("knot", "knot of a chain"));
}

function toggle(label: string, on: boolean, changed: (on: boolean) => void): HTMLElement {
  const box = h("input", { type: "checkbox", checked: on, onchange: () => changed(box.checked) });
  return h("label", { class: "check" }, box, label);
}

function lossData(runs: Run[], smoothed: boolean): ChartData {
  const many = runs.length > 1;
  const lines = runs.flatMap((run) => {
    const prefix = many ? `${run.name} ` : "";
    const colour = `--run-${run.colour}`;
    const { steps, values } = column(run, "loss");
    const training: Line[] = smoothed
      ? [
          { label: `${prefix}measured`, colour, kind: "faint", steps, values },
          { label: `${prefix}training`, colour, kind: "line", steps, values: smooth(values) },
        ]
      : [{ label: `${prefix}training`, colour, kind: "line", steps, values }];
    const evals = present(run, "eval");
    return evals.steps.length ? [...training, { label: `${prefix}held out`, colour, kind: "points", ...evals } satisfies Line] : training;
  });
  const marks = runs.flatMap((run) => run.series.knots.map(({ step, link }): Mark => ({ step, label: `link ${link + 1}`, colour: `--run-${run.colour}` })));
  return { lines, marks, summary: lossSummary(), table: () => table(["loss", "eval"]) };
}

function metricData(runs: Run[], key: MetricKey): ChartData {
  const { label, unit, format } = METRICS[key];
  const lines = runs.filter((run) => run.series.last(key) !== null).map((run): Line => ({ label: runs.length > 1 ? run.name : "", colour: `--run-${run.colour}`, kind: "line", ...column(run, key) }));
  const last = shownRun()?.series.last(key) ?? null;
  return { lines, marks: [], summary: last === null ? "" : `${label}: ${format(last)} ${unit}.`, table: () => table([key]) };
}

/** One line per module of the shown run. */
function moduleData(watched: Run["series"]["modules"]): ChartData {
  const last = watched.at(-1)?.scales ?? [];
  const steps = watched.map(({ step }) => step);
  const lines = last.map((_, i): Line => ({ label: `module ${i}`, colour: `--run-${i % 6}`, kind: "line", steps, values: watched.map(({ scales }) => scales[i] ?? null) }));
  const summary = last.length === 0 ? "" : `Mean scale of ${plural(last.length, "module")}: ${last.map(short).join(", ")}.`;
  const rows = () => thin(watched.length, TABLE_ROWS).flatMap((i) => watched[i] ?? []);
  return { lines, marks: [], summary, table: () => ({ head: ["Step", ...lines.map(({ label }) => label)], rows: rows().map(({ step, scales }) => [count(step), ...scales.map(short)]) }) };
}

function lossSummary(): string {
  const run = shownRun();
  if (!run || run.series.step.length === 0) return "";
  const { series } = run;
  const held = series.last("eval") === null ? "" : ` Held-out loss ${loss(series.last("eval"))}.`;
  const knots = series.knots.length ? ` ${plural(series.knots.length, "knot")}.` : "";
  return `Run ${run.name}: training loss from ${loss(series.first("loss"))} to ${loss(series.last("loss"))} in ${plural(run.step, "step")}.${held}${knots}`;
}

/** A column, thinned to what can be seen. */
function column(run: Run, key: MetricKey): { steps: number[]; values: (number | null)[] } {
  const { step, columns } = run.series;
  const rows = thin(step.length, POINTS);
  return { steps: rows.map((i) => step[i] ?? 0), values: rows.map((i) => columns[key][i] ?? null) };
}

/** Only the rows that have a value: single measurements. */
function present(run: Run, key: MetricKey): { steps: number[]; values: (number | null)[] } {
  const rows = run.series.step.map((step, i) => [step, run.series.columns[key][i] ?? null] as const).filter(([, value]) => value !== null);
  return { steps: rows.map(([step]) => step), values: rows.map(([, value]) => value) };
}

/** The shown run in numbers: every so many steps, and each held-out loss. */
function table(keys: MetricKey[]): { head: string[]; rows: string[][] } {
  const head = ["Step", ...keys.map((key) => METRICS[key].label)];
  const run = shownRun();
  if (!run) return { head, rows: [] };
  const { step, columns } = run.series;
  const chosen = new Set(thin(step.length, TABLE_ROWS));
  columns.eval.forEach((value, i) => value !== null && keys.includes("eval") && chosen.add(i));
  const rows = [...chosen].sort((a, b) => a - b);
  const cell = (key: MetricKey, i: number) => {
    const value = columns[key][i];
    return value === null || value === undefined ? "" : METRICS[key].format(value);
  };
  return { head, rows: rows.map((i) => [count(step[i] ?? 0), ...keys.map((key) => cell(key, i))]) };
}
