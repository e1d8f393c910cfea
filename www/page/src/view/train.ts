/** Section 4: the run. */

import { secondsLeft } from "../actions/events";
import { continueRun, pause, resume, start, stop, tieKnot } from "../actions/run";
import { h, setDisabled, setText, show } from "../lib/dom";
import { bytes, count, duration, loss, short } from "../lib/format";
import { get, isTraining, shownRun, watch, type Run } from "../state";
import { chartsView } from "./charts";
import { logView } from "./log";
import { problemBox, progressBar, section } from "./parts";
import { planView } from "./plan";
import { runsTable } from "./runs";
import { stateInWords } from "./words";

/** The section. */
export function trainSection(): HTMLElement {
  const { root, body, aside } = section(4, "Train", "train");
  const hint = h("p", { class: "muted" });
  const compiling = progressBar("Preparing the run");
  const problem = problemBox();
  body.append(hint, planView(), controls(), compiling.root, problem.root, figures(), chartsView(), runsTable(), logView());
  let followed = "";
  watch(["runs", "base", "rows"], () => {
    const run = shownRun();
    const { base, rows } = get();
    if (run?.state === "starting" && followed !== run.id) {
      followed = run.id;
      follow(root);
    }
    const missing = base.status !== "ready" ? "Load a base model first." : rows.train === null ? "Choose rows to train on." : "";
    setText(hint, missing);
    show(hint, missing !== "" && !isTraining());
    compiling.set(run?.state === "starting" ? (base.progress ?? { phase: "pipelines", done: 0, total: 0 }) : null);
    problem.set(run?.state === "failed" ? run.problem : null);
    setText(aside, run ? stateInWords(run) : "");
  });
  return root;
}

/** Brings a run that begins into view, and the focus with it where its button has gone away. */
function follow(root: HTMLElement): void {
  const { top, bottom } = root.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2 || bottom < 0) root.scrollIntoView({ behavior: "smooth", block: "start" });
  const focused = document.activeElement;
  if (!focused || focused === document.body || focused.closest("[hidden]")) root.querySelector("h2")?.focus({ preventScroll: true });
}

function controls(): HTMLElement {
  const startButton = h("button", { type: "button", class: "primary", onclick: () => void start() }, "Start training");
  const pauseButton = h("button", { type: "button", onclick: () => void (shownRun()?.state === "paused" ? resume() : pause()) }, "Pause");
  const stopButton = h("button", { type: "button", onclick: () => void stop() }, "Stop");
  const knotButton = h("button", { type: "button", title: "Freeze the link that trains and begin the next one", onclick: () => void tieKnot() }, "Tie a knot");
  const goOn = h("button", { type: "button", onclick: () => { const run = shownRun(); if (run) void continueRun(run); } }, "Continue this run");
  const root = h("div", { class: "row controls" }, startButton, pauseButton, stopButton, knotButton, goOn);
  watch(["runs", "base", "rows", "plan", "form", "trial"], () => {
    const { base, rows, plan, form, trial, runs } = get();
    const run = shownRun();
    const active = runs.active !== null;
    const had = document.activeElement;
    show(startButton, !active);
    setText(startButton, form.resume ? `Go on from step ${form.resume.step}` : runs.list.length > 0 ? "Start another run" : "Start training");
    const ready = base.status === "ready" && rows.train !== null && plan.status === "ready" && plan.plan?.fits !== false;
    setDisabled(startButton, !ready || plan.measuring || trial.busy, ready ? "" : "A base, rows and settings that can be planned are needed");
    show(pauseButton, active);
    setText(pauseButton, run?.state === "paused" ? "Resume" : "Pause");
    setDisabled(pauseButton, run?.state !== "running" && run?.state !== "paused");
    show(stopButton, active);
    setDisabled(stopButton, run?.state !== "running" && run?.state !== "paused");
    show(knotButton, active && run?.config["method"] === "cola");
    setDisabled(knotButton, run?.state !== "running" && run?.state !== "paused");
    show(goOn, !active && run?.state === "stopped" && run.step > 0 && run.step < run.total);
    // A focused button that goes away hands the focus to the one in its place.
    if (had === startButton && startButton.hidden) pauseButton.focus();
    if ((had === pauseButton || had === stopButton) && pauseButton.hidden) startButton.focus();
  });
  return root;
}

const FIGURES: [string, (run: Run) => string][] = [
  ["Loss", (run) => loss(run.series.last("loss"))],
  ["Held-out loss", (run) => loss(run.series.last("eval"))],
  ["Speed", (run) => (run.series.last("speed") === null ? "–" : `${count(run.series.recent("speed", 10) ?? 0)} tokens/s`)],
  ["Time left", (run) => (run.state === "done" || run.state === "stopped" ? "–" : duration(secondsLeft(run) ?? NaN))],
  ["Learning rate", (run) => short(run.series.last("lr"))],
  ["Gradient norm", (run) => short(run.series.last("grad"))],
  ["GPU memory planned", (run) => bytes(run.plannedBytes)],
  ["GPU memory in use", (run) => (run.usedBytes > 0 ? bytes(run.usedBytes) : "–")],
  ["Wasm memory", (run) => (run.wasmBytes > 0 ? bytes(run.wasmBytes) : "–")],
  ["Trained for", (run) => duration(run.seconds + (run.clock > 0 ? (Date.now() - run.clock) / 1000 : 0))],
];

function figures(): HTMLElement {
  const values = FIGURES.map(() => h("dd", {}));
  const bar = h("progress", { "aria-label": "Steps done", max: 1, value: 0 });
  const list = h("dl", { class: "figures" }, ...FIGURES.map(([name], i) => h("div", {}, h("dt", {}, name), values[i])));
  const root = h("div", { hidden: true }, bar, list);
  const draw = () => {
    const run = shownRun();
    show(root, run !== null);
    if (!run) return;
    bar.max = Math.max(1, run.total);
    bar.value = run.step;
    FIGURES.forEach(([, read], i) => values[i] && setText(values[i], read(run)));
  };
  let due = 0;
  // Faster than a person reads would only cost layout.
  watch(["runs"], () => {
    if (due) return;
    due = window.setTimeout(() => {
      due = 0;
      draw();
    }, 100);
  });
  return root;
}
