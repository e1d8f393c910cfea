/** What a run tells, put into its row, its curves and its log. */

import type { TrainEvent } from "weblora";
import { asForm } from "../lib/settings";
import { announce } from "../lib/announce";
import { count, duration, loss, percent, plural, short } from "../lib/format";
import { keepCurves } from "../lib/history";
import { inWords } from "../lib/problem";
import { touch, update, type Run } from "../state";
import { remember } from "./plan";

/** How slowly the estimate of a step's time follows the last step. */
const INERTIA = 0.9;

/** Takes one event. */
export function take(run: Run, event: TrainEvent): void {
  switch (event.event) {
    case "start":
      started(run, event);
      break;
    case "step":
      stepped(run, event);
      break;
    case "eval": {
      run.series.put(event.step, { eval: event.loss, ...(event.accuracy === undefined ? {} : { accuracy: event.accuracy }) });
      const best = event.best ? ", the lowest so far" : "";
      if (event.best) run.bestStep = event.step;
      note(run, `Held-out loss ${loss(event.loss)} at step ${count(event.step)}, over ${plural(event.tokens, "token")}${best}.${event.accuracy === undefined ? "" : ` Right choices: ${percent(event.accuracy)}.`}`);
      break;
    }
    case "knot":
      run.series.knots.push({ step: event.step, link: event.link, jump: event.logitJump });
      note(run, `Knot at step ${count(event.step)}: link ${event.link + 1} begins; largest change of a logit ${short(event.logitJump)}.`);
      announce(`Link ${event.link + 1} begins.`);
      break;
    case "checkpoint":
      note(run, event.path === "memory" ? `Held in memory at step ${count(event.step)}; this browser does not keep it.` : `Saved at step ${count(event.step)}.`);
      if (event.path !== "memory") run.savedStep = event.step;
      keepCurves(run.id, run.series);
      break;
    case "early_stop":
      note(run, `Ended early at step ${count(event.step)}: ${event.reason}.`);
      break;
    case "warning":
      note(run, `Warning: ${inWords(event.message)}`);
      update("notice", { kind: "info", text: inWords(event.message), detail: [] });
      announce(inWords(event.message));
      break;
    case "done":
      run.step = event.step;
      break;
  }
  touch("runs");
}

/** Writes into a run's log. */
export function note(run: Run, text: string): void {
  run.log.push({ time: Date.now(), text });
  touch("runs");
}

function started(run: Run, event: Extract<TrainEvent, { event: "start" }>): void {
  if (run.state === "starting") run.state = "running";
  run.clock = Date.now();
  run.config = asForm(event.config);
  run.total = event.steps;
  run.step = event.resumedAt;
  run.trainable = event.trainableParameters;
  run.plannedBytes = event.plannedBytes;
  if (!run.job) run.name = run.name.replace(/ · .*/, ` · ${String(event.config["method"])} r${String(event.config["rank"])}`);
  run.series.cutAfter(event.resumedAt);
  const from = event.resumedAt > 0 ? `Went on from step ${count(event.resumedAt)} of` : "Started:";
  note(run, `${from} ${plural(event.steps, "step")} on ${event.adapter}.`);
  if (event.logitJump !== undefined) note(run, `Earlier links are kept as f16; largest change of a logit ${short(event.logitJump)}.`);
  if (!run.job) announce(`${from} ${plural(event.steps, "step")}.`);
}

function stepped(run: Run, event: Extract<TrainEvent, { event: "step" }>): void {
  if (run.firstStep === null) {
    run.firstStep = (Date.now() - run.startedAt) / 1000;
    note(run, `First step ${duration(run.firstStep)} after the start.`);
  }
  const before = run.step;
  run.step = event.step;
  const split = event.ce === undefined ? {} : { ce: event.ce, balance: event.balanceLoss ?? null };
  run.series.put(event.step, { loss: event.loss, ...split, lr: event.lr, grad: event.gradNorm, speed: event.tokensPerS });
  if (event.router) run.series.routers.put(event.step, event.router);
  const seconds = event.tokens / event.tokensPerS;
  // The very first step of a visit also compiles; it says nothing about the others.
  if (run.series.step.length > 2) run.stepSeconds = run.stepSeconds === null ? seconds : INERTIA * run.stepSeconds + (1 - INERTIA) * seconds;
  if (run.stepSeconds !== null && run.series.step.length === 8) remember(run.settings, run.stepSeconds);
  if (!run.job) quarter(run, before);
}

/** Tells a screen reader at every quarter, and not more often. */
function quarter(run: Run, before: number): void {
  const part = (step: number) => Math.floor((4 * step) / Math.max(1, run.total));
  if (part(run.step) > part(before) && run.step < run.total) {
    announce(`${25 * part(run.step)} percent: step ${count(run.step)} of ${count(run.total)}, loss ${loss(run.series.last("loss"))}.`);
  }
}

/** Seconds that a run still takes, or `null` before it can be said. */
export function secondsLeft(run: Run): number | null {
  return run.stepSeconds === null ? null : run.stepSeconds * Math.max(0, run.total - run.step);
}
