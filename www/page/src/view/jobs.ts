/** Part of section 4: several jobs at once. */

import { startJob, startSweep, stopJobs, type EarlyEnd } from "../actions/jobs";
import { fill, h, setDisabled, setText, show, uniqueId } from "../lib/dom";
import { plural, short } from "../lib/format";
import { chosenRows, get, isLocked, watch } from "../state";

/** Rates are tried as multiples of the form's. */
const FACTORS = [0.25, 0.5, 1, 2, 4];
const RANKS = [2, 4, 8, 16, 32];
const ENDS: [EarlyEnd, string, string][] = [
  ["none", "None: all go to the end", "Every job takes all of its steps."],
  ["median", "Median", "A job ends when its held-out loss is worse than what half of the others had by then."],
  ["asha", "Successive halving (ASHA)", "At every rung, of three times the steps of the one before, the best third goes on."],
];

/** The panel. */
export function jobsPanel(): HTMLElement {
  const rates = numberChips("Learning rates", short);
  const ranks = numberChips("Ranks", String);
  ranks.set(RANKS, [4, 8, 16]);
  const id = uniqueId("end");
  const help = h("p", { class: "muted small", id: `${id}-help` });
  const end = h("select", { id, "aria-describedby": `${id}-help` }, ...ENDS.map(([value, label]) => h("option", { value }, label)));
  const words = () => setText(help, ENDS.find(([value]) => value === end.value)?.[2] ?? "");
  end.addEventListener("change", words);
  words();
  const sweep = h("button", { type: "button", class: "primary", onclick: () => void startSweep({ rates: rates.chosen(), ranks: ranks.chosen(), end: end.value as EarlyEnd }) });
  const one = h("button", { type: "button", onclick: () => void startJob() });
  const stop = h("button", { type: "button", onclick: () => void stopJobs() }, "Stop all");
  const early = h("div", { class: "field" }, h("label", { for: id, class: "label" }, "End early"), end, help);
  const intro = h("p", { class: "muted small" }, "They share the model in memory and one pass over it. Each learns what it would learn alone; their curves lie over each other, and the best on held-out rows is marked.");
  const root = h("details", { class: "more jobs" }, h("summary", {}, "Several at once: a sweep, or job by job"), h("div", { class: "stack" }, intro, rates.root, ranks.root, early, h("div", { class: "row" }, sweep, one, stop)));

  let base = 0;
  const refresh = () => {
    const { form, plan, runs, trial } = get();
    show(root, get().base.status === "ready" && !isLocked());
    const lr = Number(form.changed["lr"] ?? form.table.find(({ key }) => key === "lr")?.default ?? 0);
    if (lr > 0 && lr !== base) {
      base = lr;
      const values = FACTORS.map((factor) => Number((lr * factor).toPrecision(2)));
      rates.set(values, values.slice(1, 4));
    }
    const training = runs.jobs !== null;
    if (training) root.open = true;
    const number = rates.chosen().length * ranks.chosen().length;
    const ready = chosenRows() !== null && plan.status === "ready" && plan.plan?.fits !== false && !plan.measuring && !trial.busy;
    setText(sweep, training ? `Add ${plural(number, "job")}` : `Start ${plural(number, "job")}`);
    setDisabled(sweep, !ready || number === 0, number === 0 ? "Choose a rate and a rank at least" : "Rows and settings that can be planned are needed");
    setText(one, training ? "Add the settings as a job" : "Start the settings as a job");
    setDisabled(one, !ready);
    show(stop, training);
    show(early, !training);
  };
  root.addEventListener("input", refresh);
  watch(["runs", "base", "rows", "plan", "form", "trial"], refresh);
  return root;
}

/** Numbers to tick. */
function numberChips(legend: string, format: (n: number) => string): { root: HTMLElement; set(values: number[], ticked: number[]): void; chosen(): number[] } {
  const list = h("div", { class: "chips" });
  const root = h("fieldset", { class: "plain chip-group" }, h("legend", { class: "label" }, legend), list);
  return {
    root,
    set: (values, ticked) => fill(list, ...values.map((value) => h("label", { class: "chip" }, h("input", { type: "checkbox", value: String(value), checked: ticked.includes(value) }), h("span", {}, format(value))))),
    chosen: () => [...list.querySelectorAll<HTMLInputElement>("input:checked")].map(({ value }) => Number(value)),
  };
}
