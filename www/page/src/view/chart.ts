/** One chart: a canvas for the eye, a sentence and a table for everyone else. */

import uPlot from "uplot";
import { fill, h, setText, show } from "../lib/dom";
import { onThemeChange } from "../lib/theme";

/** A line of a chart. */
export interface Line {
  label: string;
  /** A custom property with its colour: `--run-0`. */
  colour: string;
  /** How it is drawn: a measured line, the same smoothed behind it, or single measurements. */
  kind: "line" | "faint" | "points";
  steps: number[];
  values: (number | null)[];
}

/** A vertical mark at a step. */
export interface Mark {
  step: number;
  label: string;
  colour: string;
}

/** What a chart shows now. */
export interface ChartData {
  lines: Line[];
  marks: Mark[];
  /** One sentence for those who do not see the canvas. */
  summary: string;
  /** Head and rows of the table. */
  table: () => { head: string[]; rows: string[][] };
}

/** A chart and what changes it. */
export interface Chart {
  root: HTMLElement;
  set(data: ChartData): void;
  setLog(on: boolean): void;
}

/** Settings that do not change. */
export interface ChartOptions {
  title: string;
  unit: string;
  height: number;
  format(x: number): string;
  /** Zero belongs to the picture (speeds), or not (losses). */
  fromZero: boolean;
}

/** Makes a chart. */
export function chart(options: ChartOptions): Chart {
  const readout = h("p", { class: "readout small muted" });
  const canvas = h("div", { class: "canvas", "aria-hidden": "true" });
  const summary = h("p", { class: "visually-hidden" });
  const table = h("div", { class: "table-scroll chart-table", hidden: true, tabindex: 0, role: "region", "aria-label": `${options.title}, table` });
  const toggle = h("button", { type: "button", class: "quiet small", "aria-pressed": "false", "aria-label": `${options.title} as a table` }, "Table");
  const title = h("figcaption", {}, h("strong", {}, options.title), h("span", { class: "muted small" }, options.unit));
  const root = h("figure", { class: "chart" }, h("div", { class: "chart-head" }, title, toggle), readout, canvas, summary, table);
  let plot: uPlot | null = null;
  let data: ChartData = { lines: [], marks: [], summary: "", table: () => ({ head: [], rows: [] }) };
  let shape = "";
  let log = false;

  const build = () => {
    plot?.destroy();
    plot = new uPlot(plotOptions(options, () => data, log, canvas.clientWidth, (text) => setText(readout, text)), joined(data.lines), canvas);
  };
  const draw = () => {
    if (canvas.clientWidth === 0) return;
    // Other lines or scales need another plot; new values do not.
    const now = JSON.stringify([log, data.lines.map(({ label, colour, kind }) => [label, colour, kind])]);
    if (!plot || now !== shape) {
      shape = now;
      build();
    } else plot.setData(joined(data.lines));
  };
  const drawTable = () => {
    if (table.hidden) return;
    const { head, rows } = data.table();
    const cells = rows.map((row) => h("tr", {}, ...row.map((cell, i) => h(i === 0 ? "th" : "td", i === 0 ? { scope: "row" } : { class: "number" }, cell))));
    fill(table, h("table", {}, h("thead", {}, h("tr", {}, ...head.map((cell) => h("th", { scope: "col" }, cell)))), h("tbody", {}, cells)));
  };
  toggle.addEventListener("click", () => {
    const on = table.hidden;
    show(table, on);
    show(canvas, !on);
    show(readout, !on);
    toggle.setAttribute("aria-pressed", String(on));
    if (on) drawTable();
    else draw();
  });
  new ResizeObserver(() => {
    if (plot && canvas.clientWidth > 0) plot.setSize({ width: canvas.clientWidth, height: options.height });
    else draw();
  }).observe(canvas);
  onThemeChange(() => plot && build());
  return {
    root,
    set: (next) => {
      data = next;
      setText(summary, next.summary);
      draw();
      drawTable();
    },
    setLog: (on) => {
      log = on;
      draw();
    },
  };
}

function joined(lines: Line[]): uPlot.AlignedData {
  if (lines.length === 0) return [[0], [null]];
  return uPlot.join(lines.map(({ steps, values }) => [steps, values] as uPlot.AlignedData));
}

function plotOptions(options: ChartOptions, data: () => ChartData, log: boolean, width: number, say: (text: string) => void): uPlot.Options {
  const { lines } = data();
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: colour("--muted"), font, grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 } };
  const range: uPlot.Range.Config = { min: { pad: 0.1, soft: options.fromZero ? 0 : null, mode: options.fromZero ? 1 : 0 }, max: { pad: 0.1 } } as uPlot.Range.Config;
  return {
    width,
    height: options.height,
    padding: [8, 14, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: false }, y: log ? { distr: 3 } : { range } },
    axes: [
      { ...axis, size: 28, space: 60, values: (_plot, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? String(tick) : "")) },
      { ...axis, size: 58, space: 34, values: (_plot, ticks) => ticks.map((tick) => (tick === null ? "" : axisLabel(tick))) },
    ],
    series: [{}, ...(lines.length ? lines.map(style) : [{}])],
    hooks: {
      draw: [(plot) => drawMarks(plot, data().marks)],
      setCursor: [
        (plot) => {
          const at = plot.cursor.idx;
          say(at === null || at === undefined ? "" : readAt(plot, at, data().lines, options));
        },
      ],
    },
  };
}

/** Short enough for the axis, whatever the size. */
function axisLabel(tick: number): string {
  if (tick === 0) return "0";
  const size = Math.abs(tick);
  if (size >= 1e4 || size < 1e-3) return tick.toExponential(0).replace("e+", "e");
  return String(Number(tick.toPrecision(3)));
}

function style(line: Line): uPlot.Series {
  const stroke = colour(line.colour);
  switch (line.kind) {
    case "points":
      return { stroke, width: 1.5, dash: [4, 4], spanGaps: true, points: { show: true, size: 7, stroke, fill: colour("--card"), width: 1.5 } };
    case "faint":
      return { stroke, width: 1, alpha: 0.35, points: { show: false } };
    default:
      return { stroke, width: 2, spanGaps: true, points: { show: false } };
  }
}

function readAt(plot: uPlot, at: number, lines: Line[], options: ChartOptions): string {
  const parts = lines.flatMap((line, i) => {
    const value = plot.data[i + 1]?.[at];
    return line.kind === "faint" || value === null || value === undefined ? [] : [`${line.label} ${options.format(value)}`];
  });
  return `Step ${plot.data[0]?.[at] ?? ""}: ${parts.join(", ") || "–"}`;
}

/** Knots: a line from top to bottom with a diamond on it. */
function drawMarks(plot: uPlot, marks: Mark[]): void {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  for (const mark of marks) {
    const x = plot.valToPos(mark.step, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour(mark.colour);
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const [size, top] = [5 * ratio, bbox.top + 6 * ratio];
    ctx.beginPath();
    ctx.moveTo(x, top - size);
    ctx.lineTo(x + size, top);
    ctx.lineTo(x, top + size);
    ctx.lineTo(x - size, top);
    ctx.fill();
    ctx.restore();
  }
}

const probe = h("span", { class: "colour-probe", "aria-hidden": "true" });

/** A custom property as a colour that a canvas takes, whatever the theme makes of it. */
function colour(property: string): string {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(${property})`;
  return getComputedStyle(probe).color;
}
