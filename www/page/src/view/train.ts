/** Section 4: the run. */

import { secondsLeft } from "../actions/events";
import { canGoOn, continueRun, diverged, pause, resume, start, stop, tieKnot } from "../actions/run";
import { fill, h, setDisabled, setText, show } from "../lib/dom";
import { LABELS } from "../data/words";
import { withoutKey } from "../lib/problem";
import { bytes, count, duration, loss, percent, plural, short } from "../lib/format";
import { chosenRows, get, isTraining, shownRun, watch, type Run } from "../state";
import { chartsView } from "./charts";
import { logView } from "./log";
import { problemBox, progressBar, section, sentence } from "./parts";
import { finaleView } from "./finale";
import { jobsPanel } from "./jobs";
import { planView } from "./plan";
import { runsTable } from "./runs";
import { jobsInWords, stateInWords } from "./words";

/** The section. */
export function trainSection(): HTMLElement {
  const { root, body, aside } = section(4, "Train", "train");
  const hint = h("p", { class: "muted" });
  const compiling = progressBar("Preparing the run");
  const problem = problemBox();
  body.append(hint, finaleView(), planBlock(), controls(), jobsPanel(), compiling.root, problem.root, figures(), chartsView(), runsTable(), logView());
  let followed = "";
  watch(["runs", "base", "rows"], () => {
    const run = shownRun();
    const { base } = get();
    if (run?.state === "starting" && followed !== run.id) {
      followed = run.id;
      follow(root);
    }
    const missing = base.status !== "ready" ? "Load a base model first." : chosenRows() === null ? "Choose rows to train on." : "";
    setText(hint, missing);
    show(hint, missing !== "" && !isTraining());
    const preparing = run?.state === "starting" || (isTraining() && base.progress !== null);
    compiling.set(preparing ? (base.progress ?? { phase: "pipelines", done: 0, total: 0 }) : null);
    problem.set(run?.state === "failed" ? run.problem : null);
    const set = get().runs.jobs ?? run?.job?.set;
    document.title = titleOf(run);
    setText(aside, set ? jobsInWords(set) : run ? stateInWords(run) : "");
  });
  return root;
}

/** The tab's title: how far it is, for when the tab is not looked at. */
function titleOf(run: Run | null): string {
  if (!isTraining() || !run || run.total === 0) return run && (run.state === "done" || run.state === "stopped") ? "Done · weblora" : "weblora";
  return `${Math.floor((100 * run.step) / run.total)} % · weblora`;
}

/** The plan: open before the first run, folded afterwards, so that it does not push the chart away. */
function planBlock(): HTMLElement {
  const summary = h("summary", {});
  const block = h("details", { class: "more plan-block", open: true }, summary, planView());
  let had = false;
  watch(["plan", "runs", "base"], () => {
    const { runs, plan, base } = get();
    const first = runs.list.length === 0;
    show(block, base.status === "ready" && runs.active === null);
    show(summary, !first);
    if (first) block.open = true;
    else if (!had) block.open = false;
    had = !first;
    const { plan: found, stepSeconds } = plan;
    const time = found?.steps ? (stepSeconds === null ? plural(found.steps, "step") : duration(stepSeconds * found.steps)) : "";
    setText(summary, found ? `The next run takes ${bytes(found.totalBytes)}${time ? `, ${time}` : ""}` : "What the next run takes");
  });
  return block;
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
  const reason = h("p", { class: "why small", hidden: true });
  // Only on a phone, where the bar stays at the window's edge while figures and charts scroll away.
  const progress = h("progress", { class: "bar-progress", "aria-hidden": "true", max: 1, value: 0 });
  const state = h("p", { class: "bar-state small", "aria-hidden": "true" });
  const root = h("div", { class: "row controls" }, progress, startButton, pauseButton, stopButton, knotButton, goOn, state, reason);
  watch(["runs", "base", "rows", "plan", "form", "trial"], () => {
    const { base, plan, form, trial, runs } = get();
    const run = shownRun();
    const active = runs.active !== null;
    const had = document.activeElement;
    const jobs = runs.jobs !== null;
    // On a first visit nothing is lost by scrolling.
    root.classList.toggle("stays", base.status !== "none" || runs.list.length > 0);
    progress.max = Math.max(1, run?.total ?? 1);
    progress.value = run?.step ?? 0;
    show(progress, run !== null);
    setText(state, run ? (jobs ? jobsInWords(runs.jobs ?? "") : stateInWords(run)) : "");
    show(state, run !== null);
    show(startButton, !active && !jobs);
    setText(startButton, form.resume ? `Go on from step ${form.resume.step}` : runs.list.length > 0 ? "Start another run" : "Start training");
    const ready = base.status === "ready" && chosenRows() !== null && plan.status === "ready" && plan.plan?.fits !== false;
    setDisabled(startButton, !ready || plan.measuring || trial.busy, ready ? "" : "A base, rows and settings that can be planned are needed");
    const why = active || jobs || ready ? null : whyNot();
    show(reason, why !== null);
    if (why) fill(reason, `${why.text} `, why.at ? h("button", { type: "button", class: "link", onclick: () => jump(why.at ?? "") }, why.label) : null);
    show(pauseButton, active);
    setText(pauseButton, run?.state === "paused" ? "Resume" : "Pause");
    setDisabled(pauseButton, run?.state !== "running" && run?.state !== "paused");
    show(stopButton, active);
    setDisabled(stopButton, run?.state !== "running" && run?.state !== "paused");
    show(knotButton, active && run?.config["method"] === "cola");
    setDisabled(knotButton, run?.state !== "running" && run?.state !== "paused");
    show(goOn, !active && !jobs && run !== null && canGoOn(run));
    if (run) setText(goOn, diverged(run) ? "Go on from before, at a smaller rate" : "Continue this run");
    // A focused button that goes away hands the focus to the one in its place.
    if (had === startButton && startButton.hidden) pauseButton.focus();
    if ((had === pauseButton || had === stopButton) && pauseButton.hidden) startButton.focus();
  });
  return root;
}

/** Why nothing can be started, and where that can be changed. */
function whyNot(): { text: string; at?: string; label: string } | null {
  const { base, plan } = get();
  if (base.status !== "ready") return { text: "A base model is needed.", at: ".setup .section:nth-of-type(1)", label: "Choose one" };
  if (chosenRows() === null) return { text: "Rows are needed.", at: ".rows-section", label: "Choose them" };
  const { key, message } = plan.problem ?? {};
  if (key && message) return { text: sentence(withoutKey(message)), at: `[data-key="${CSS.escape(key)}"]`, label: `Change ${LABELS[key] ?? key}` };
  if (plan.problem) return { text: sentence(plan.problem.message), label: "" };
  if (plan.plan && !plan.plan.fits) return { text: "It does not fit in this GPU.", at: '[data-key="batch"]', label: "Make the batch smaller" };
  return null;
}

/** Brings a field or section into view, with the focus in it. */
function jump(selector: string): void {
  const target = document.querySelector<HTMLElement>(selector);
  const folded = target?.closest("details");
  if (folded) folded.open = true;
  target?.scrollIntoView({ behavior: "smooth", block: "center" });
  target?.querySelector<HTMLElement>("input, select, h2")?.focus({ preventScroll: true });
}

/** Whether the run has routers and experts. */
const routed = (run: Run): boolean => run.series.last("ce") !== null;

/** A share in per cent. */
const share = (part: number | null): string => (part === null ? "–" : percent(part));

const isOver = ({ state }: Run): boolean => state === "done" || state === "stopped";

/** The first ones are not folded away: five of a run, whichever it has. */
const FIRST = 7;

/** A name, what a run has of it, and whether it is a figure of every run. */
const FIGURES: [string, (run: Run) => string, ((run: Run) => boolean)?][] = [
  ["Loss", (run) => loss(run.series.last("loss"))],
  ["Held-out loss", (run) => loss(run.series.last("eval"))],
  ["Right choices", (run) => share(run.series.last("accuracy")), (run) => run.series.last("accuracy") !== null],
  ["Answered exactly", (run) => share(run.exact), (run) => run.exact !== null],
  ["Speed", (run) => (run.series.last("speed") === null ? "–" : `${count(run.series.recent("speed", 10) ?? 0)} tokens/s`)],
  ["Time left", (run) => (isOver(run) ? "–" : duration(run.job?.secondsLeft ?? secondsLeft(run) ?? NaN)), (run) => run.exact === null],
  ["Trained for", (run) => duration(run.seconds + (run.clock > 0 ? (Date.now() - run.clock) / 1000 : 0))],
  ["Cross-entropy", (run) => loss(run.series.last("ce")), routed],
  ["Balance loss", (run) => short(run.series.last("balance")), routed],
  ["Learning rate", (run) => short(run.series.last("lr"))],
  ["Gradient norm", (run) => short(run.series.last("grad"))],
  ["GPU memory planned", (run) => bytes(run.plannedBytes)],
  ["GPU memory in use", (run) => (run.usedBytes > 0 ? bytes(run.usedBytes) : "–")],
  ["Wasm memory", (run) => (run.wasmBytes > 0 ? bytes(run.wasmBytes) : "–")],
];

function figures(): HTMLElement {
  const values = FIGURES.map(() => h("dd", {}));
  const bar = h("progress", { "aria-label": "Steps done", max: 1, value: 0 });
  const figure = ([name]: (typeof FIGURES)[number], i: number) => h("div", { class: i === 0 ? "figure-main" : "" }, h("dt", {}, name), values[i]);
  const all = FIGURES.map(figure);
  const rest = h("details", { class: "more" }, h("summary", {}, "More figures"), h("dl", { class: "figures" }, ...all.slice(FIRST)));
  const root = h("div", { class: "figures-block", hidden: true }, bar, h("dl", { class: "figures" }, ...all.slice(0, FIRST)), rest);
  const draw = () => {
    const run = shownRun();
    show(root, run !== null);
    if (!run) return;
    bar.max = Math.max(1, run.total);
    bar.value = run.step;
    FIGURES.forEach(([, read, has], i) => {
      const value = values[i];
      if (value) setText(value, read(run));
      if (all[i]) show(all[i], has?.(run) ?? true);
    });
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
