/** What the run will take, before it starts: memory from the plan, time from a measured step. */

import { measure } from "../actions/plan";
import { fill, h, setDisabled, setText, show } from "../lib/dom";
import { bytes, duration, plural } from "../lib/format";
import { inWords } from "../lib/problem";
import { chosenRows, get, isLocked, watch } from "../state";
import { problemBox, sentence } from "./parts";

/** Memory by purpose, in the order in which it is drawn. */
const PURPOSES: [string, string][] = [
  ["weights", "base weights"],
  ["adapter", "adapter"],
  ["gradients", "gradients"],
  ["optimizer", "optimizer"],
  ["activations", "activations"],
  ["io", "inputs, outputs"],
  ["params", "kernel parameters"],
];

/** The estimate. */
export function planView(): HTMLElement {
  const total = h("strong", { class: "big" });
  const detail = h("p", { class: "muted small" });
  const bar = h("div", { class: "memory-bar", "aria-hidden": "true" });
  const legend = h("ul", { class: "memory-legend" });
  const time = h("strong", { class: "big" });
  const timeDetail = h("p", { class: "muted small" });
  const button = h("button", { type: "button", onclick: () => void measure() }, "Measure a step");
  const passes = h("p", { class: "muted small" });
  const problem = problemBox();
  const memory = h("div", { class: "estimate" }, h("h3", {}, "GPU memory"), total, detail, bar, legend);
  const speed = h("div", { class: "estimate" }, h("h3", {}, "Time"), time, timeDetail, passes, button);
  const body = h("div", { class: "estimates" }, memory, speed);
  const root = h("div", { class: "plan" }, body, problem.root);

  watch(["plan", "runs", "base"], () => {
    const { plan, status, problem: found, measuring, stepSeconds } = get().plan;
    show(root, get().base.status === "ready" && !isLocked());
    root.setAttribute("aria-busy", String(status === "busy"));
    // A wrong setting is told at its field.
    problem.set(found && !found.key ? found : plan && !plan.fits ? { code: "limit", message: plan.reason ?? "It does not fit in this GPU.", causes: [] } : null);
    show(body, plan !== null);
    if (!plan) return;
    setText(total, bytes(plan.totalBytes));
    setText(detail, `exactly: ${plural(plan.trainable, "trainable parameter")}; a batch has ${plural(plan.rows, "token")} and takes ${plural(plan.dispatches, "kernel launch", "kernel launches")}`);
    drawMemory(bar, legend, plan.byPurpose);
    const steps = plan.steps ?? 0;
    setText(time, stepSeconds !== null && steps > 0 ? duration(stepSeconds * steps) : steps > 0 ? plural(steps, "step") : "–");
    setText(timeDetail, stepSeconds !== null ? `${plural(steps, "step")} of ${duration(stepSeconds)}, as measured on this GPU` : "not measured with these settings yet");
    setText(passes, [plan.passes?.words ?? "", ...(plan.warnings ?? [])].filter(Boolean).map((line) => sentence(inWords(line))).join(" "));
    show(button, chosenRows() !== null);
    setDisabled(button, measuring || !plan.fits);
    setText(button, measuring ? "Measuring…" : stepSeconds !== null ? "Measure again" : "Measure a step");
  });
  return root;
}

/** A bar of the purposes, and the same in words. */
export function drawMemory(bar: HTMLElement, legend: HTMLElement, byPurpose: Record<string, number>): void {
  const known = PURPOSES.filter(([key]) => (byPurpose[key] ?? 0) > 0);
  const others = Object.keys(byPurpose).filter((key) => !PURPOSES.some(([name]) => name === key) && (byPurpose[key] ?? 0) > 0);
  const rows = [...known, ...others.map((key): [string, string] => [key, key])];
  const parts = rows.map(([key], i) => {
    const part = h("span", { class: `memory-part part-${i % 7}` });
    part.style.flexGrow = String(byPurpose[key]);
    return part;
  });
  fill(bar, ...parts);
  fill(legend, ...rows.map(([key, name], i) => h("li", {}, h("span", { class: `swatch part-${i % 7}`, "aria-hidden": "true" }), `${name} ${bytes(byPurpose[key] ?? 0)}`)));
}
