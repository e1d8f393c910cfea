/** Section 6: singular values and effective ranks of an adapter, of a chain its links, of MultiLoRA its modules, of MixLoRA its experts; and changing it. */

import type { Analysis } from "weblora";
import { analyzeChosen } from "../actions/inside";
import { chosenAdapter, knownAdapters } from "../actions/trial";
import { fill, h, setDisabled, setText, show } from "../lib/dom";
import { get, watch } from "../state";
import { changeAdapter } from "./change";
import { picture, problemBox, section } from "./parts";

/** The section. */
export function insideSection(): HTMLElement {
  const { root, body } = section(6, "Look inside");
  const hint = h("p", { class: "muted" });
  const problem = problemBox();
  const found = h("div", { class: "inside", hidden: true });
  const go = h("button", { type: "button" }, "Analyse the adapter");
  let busy = false;
  /** The adapter whose figures are shown. */
  let shown = "";
  const refresh = () => {
    // What was found in one adapter says nothing of another.
    if (!busy && shown !== "" && shown !== get().trial.adapter) {
      shown = "";
      problem.set(null);
      show(found, false);
    }
    const none = chosenAdapter() === null;
    setText(hint, none ? "Shows how much of its rank an adapter uses, layer by layer, once there is one." : "How much of its rank the adapter uses in each layer: where it uses all, a larger rank may help; where little, a smaller one will do.");
    setDisabled(go, none || busy || get().trial.busy, none ? "There is no adapter yet" : "");
  };
  go.addEventListener("click", () => {
    busy = true;
    const asked = get().trial.adapter;
    const name = knownAdapters().find(({ id }) => id === asked)?.name ?? "the adapter";
    refresh();
    void analyzeChosen().then((inside) => {
      busy = false;
      shown = asked;
      problem.set(inside && "problem" in inside ? inside.problem : null);
      show(found, inside !== null && "analysis" in inside);
      if (inside && "analysis" in inside) fill(found, h("p", { class: "small" }, "Of ", h("strong", {}, name), ":"), ...inside.analysis.pictures.map(({ svg }) => picture(svg)), ...tables(inside.analysis));
      refresh();
    });
  });
  body.append(hint, h("div", { class: "row" }, go), problem.root, found, changeAdapter());
  watch(["runs", "trial"], refresh);
  return root;
}

type Column = [key: string, title: string, show: (x: number) => string];

const BY_PROJECTION: Column[] = [
  ["sites", "layers", (x) => String(x)],
  ["rank_sum", "rank", (x) => String(x)],
  ["effective_rank", "effective rank", (x) => x.toFixed(2)],
  ["normalized_entropy", "entropy, of 1", (x) => x.toFixed(3)],
  ["top1_energy", "in the largest direction", (x) => `${(100 * x).toFixed(1)} %`],
  ["frobenius", "‖ΔW‖", (x) => x.toExponential(2)],
];

const BY_MODULE: Column[] = [
  ["mean_scale", "mean |s|", (x) => x.toExponential(2)],
  ["max_scale", "largest |s|", (x) => x.toExponential(2)],
  ["frobenius", "‖s ⊙ B A‖", (x) => x.toExponential(2)],
  ["share", "share of the norms", (x) => `${(100 * x).toFixed(1)} %`],
];

const BY_EXPERT: Column[] = [
  ["frobenius", "‖ΔW‖", (x) => x.toExponential(2)],
  ["router", "‖row of the router‖", (x) => x.toExponential(2)],
];

/** Medians over the layers of every expert. */
function expertRows({ experts }: Analysis["report"]): { name: string; row: Record<string, unknown> }[] {
  const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  const of = (expert: number, key: "frobenius" | "router") => median((experts?.blocks ?? []).map((block) => block[key][expert] ?? 0));
  return Array.from({ length: experts?.experts ?? 0 }, (_, expert) => ({ name: String(expert), row: { frobenius: of(expert, "frobenius"), router: of(expert, "router") } }));
}

/** Medians by projection, and of a run of MultiLoRA by module. */
function tables({ report }: Analysis): HTMLElement[] {
  const projections = report.projections.map((row) => ({ name: row.projection, row }));
  const modules = (report.modules ?? []).map((row, i) => ({ name: String(i), row: { ...row } }));
  const more: [string, Column[], { name: string; row: Record<string, unknown> }[]][] = [["module", BY_MODULE, modules], ["expert", BY_EXPERT, expertRows(report)]];
  return [table("projection", BY_PROJECTION, projections), ...more.filter(([, , rows]) => rows.length > 0).map((each) => table(...each))];
}

/** Medians over the layers, a row for each of `what`. */
function table(what: string, columns: Column[], rows: { name: string; row: Record<string, unknown> }[]): HTMLElement {
  const cell = (row: Record<string, unknown>, [key, , show]: Column) => {
    const value = row[key];
    return h("td", {}, typeof value === "number" ? show(value) : "");
  };
  const body = rows.map(({ name, row }) => h("tr", {}, h("th", { scope: "row" }, name), columns.map((column) => cell(row, column))));
  const head = h("tr", {}, [what, ...columns.map(([, title]) => title)].map((title) => h("th", { scope: "col" }, title)));
  return h(
    "div",
    { class: "table-scroll", tabindex: 0, role: "region", "aria-label": `Medians by ${what}` },
    h("table", {}, h("caption", {}, `Medians over the layers by ${what}`), h("thead", {}, head), h("tbody", {}, body)),
  );
}
