/** Starting, pausing, resuming and stopping runs. */

import type { AdapterFile, AdapterFormat, MergedModel, Progress, Restored, Training, TrainOptions } from "weblora";
import { asForm } from "../lib/settings";
import { alertUser, announce } from "../lib/announce";
import { count, loss, plural } from "../lib/format";
import { problem, PageError } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { dropCurves, keepCurves } from "../lib/history";
import { activeRun, chosenRows, get, isJobUnderWay, isTraining, runSettings, touch, update, type Run } from "../state";
import { dismissNotice, report, trainer } from "../trainer";
import { loadBase, refreshStorage } from "./base";
import { applyRecipe, formSettled, takeSettings } from "./form";
import { note, take } from "./events";
import { showFinale } from "./finale";
import { watchModules } from "./modules";
import { newRun } from "./newrun";
import { replan } from "./plan";
import { chooseSet, restoreRows } from "./rows";

let training: Training | null = null;

/** Starts a run with the form's base, rows and settings. */
export async function start(): Promise<void> {
  await formSettled();
  const { base, form } = get();
  const rows = chosenRows();
  if (isTraining() || !base.info || !base.source || !rows) return;
  const run = newRun(runSettings(), rows);
  const options: TrainOptions = {};
  if (form.init) options.initAdapter = form.init.files;
  if (form.resume) options.resume = form.resume.bytes;
  update("form", { init: null, resume: null });
  await drive(run, options);
}

/** The whole demo: the embedded model, its rows, its settings. */
export async function startDemo(): Promise<void> {
  const source = get().base.source;
  if (get().base.status !== "ready" || !source || !("embedded" in source)) {
    if (!(await loadBase({ embedded: true }))) return;
  }
  await chooseSet("swap");
  await applyRecipe("demo");
  await start();
}

/** Trains a run to its end. A lost device is the package's business: it goes on from the last save and says so in a warning. */
async function drive(run: Run, options: TrainOptions): Promise<void> {
  dismissNotice();
  const { list } = get().runs;
  update("runs", { list: list.includes(run) ? list : [...list, run], active: run.id, held: run.id });
  run.state = "starting";
  run.problem = null;
  run.startedAt = Date.now();
  const watch = window.setInterval(() => void readMemory(run), 2000);
  try {
    await attempt(run, options);
    await finish(run);
  } catch (error) {
    fail(run, error);
  } finally {
    clearInterval(watch);
    stopClock(run);
    training = null;
    touch("runs");
    void refreshStorage();
    replan();
  }
}

async function attempt(run: Run, options: TrainOptions): Promise<void> {
  const made = await trainer();
  // Whatever the Worker is doing for the form comes first.
  await exclusive(async () => undefined);
  const full: TrainOptions = { ...options, job: run.name, autosave: run.id };
  if (run.rows.heldOut) full.heldOut = run.rows.heldOut;
  full.onProgress = ({ phase, done, total }) => update("base", { progress: done < total ? { phase, done, total } : null });
  training = made.train(run.settings, run.rows.train, full);
  const current = training;
  touch("runs");
  for await (const event of current) {
    take(run, event);
    if (event.event === "step") void watchModules(run);
  }
  const last = await current.done;
  take(run, last);
  run.state = current.state === "stopped" ? "stopped" : "done";
}

async function finish(run: Run): Promise<void> {
  stopClock(run);
  const made = await trainer();
  run.adapter = run.step > 0 ? await exclusive(() => made.exportAdapter()) : null;
  const better = run.bestStep !== null && run.bestStep > 0 && run.bestStep < run.step && Number(run.config["evalEvery"]) > 0;
  run.best = better ? await exclusive(() => made.exportAdapter("best")) : null;
  const ended = run.state === "done" ? "is done" : "was stopped";
  announce(`Run ${run.name} ${ended} after ${plural(run.step, "step")}, loss ${loss(run.series.last("loss"))}.`);
  if (run.adapter) update("trial", { adapter: run.id });
  keepCurves(run.id, run.series);
  update("runs", { active: null });
  void showFinale(run);
}

function fail(run: Run, error: unknown): void {
  const found = problem(error);
  update("runs", { active: null });
  if (found.code === "aborted" || found.code === "stopped") {
    run.state = "stopped";
    return;
  }
  run.state = "failed";
  run.problem = found;
  note(run, found.message);
  alertUser(`Run ${run.name} failed: ${found.message}`);
}

/** Pauses after the step in progress; the run is saved then. */
export async function pause(): Promise<void> {
  const run = activeRun();
  if (!training || run?.state !== "running") return;
  try {
    await training.pause();
    if (run.state !== "running") return;
    run.state = "paused";
    stopClock(run);
    announce(`Paused at step ${count(run.step)} of ${count(run.total)}.`);
  } catch (error) {
    report(error);
  }
  touch("runs");
}

/** Goes on after a pause. */
export async function resume(): Promise<void> {
  const run = activeRun();
  if (!training || run?.state !== "paused") return;
  try {
    await training.resume();
    run.state = "running";
    run.clock = Date.now();
    announce("Training goes on.");
  } catch (error) {
    report(error);
  }
  touch("runs");
}

/** Ends the run after the step in progress and keeps its adapter. */
export async function stop(): Promise<void> {
  const run = activeRun();
  if (!training || !run || !["running", "paused", "starting"].includes(run.state)) return;
  run.state = "stopping";
  touch("runs");
  try {
    await training.stop();
  } catch (error) {
    report(error);
  }
}

/** Ends a chain's link after the step in progress; the next one begins. */
export async function tieKnot(): Promise<void> {
  try {
    const { link } = await (await trainer()).tieKnot();
    announce(`A knot is tied; link ${link + 1} begins.`);
  } catch (error) {
    report(error);
  }
}

/** A rate at which adapters usually train, for a run that diverged at a higher one. */
const USUAL_LR = 1e-3;

/** Whether a run of this visit can go on: it was stopped, or its loss became NaN after something was saved. */
export function canGoOn(run: Run): boolean {
  if (run.job || run.step >= run.total) return false;
  return (run.state === "stopped" && run.step > 0) || (diverged(run) && run.savedStep > 0);
}

/** Whether a run ended in NaN. */
export const diverged = (run: Run): boolean => run.state === "failed" && run.problem?.code === "not_finite";

/** Goes on with a run of this visit: one that diverged from before that, at a smaller rate. */
export async function continueRun(run: Run): Promise<void> {
  if (isTraining()) return;
  if (diverged(run)) run.settings = { ...run.settings, lr: Math.min(Number(run.config["lr"]) / 2, USUAL_LR) };
  try {
    if (get().base.info?.contentHash !== run.base.hash && !(await loadBase(run.base.source))) return;
    const made = await trainer();
    // Where nothing can be saved, the Worker itself may still have the run.
    const resume = await exclusive(() => made.restore(run.id).then(({ checkpoint }) => checkpoint, () => made.checkpoint()));
    await drive(run, { resume });
  } catch (error) {
    report(error);
  }
}

/** Goes on with a run that an earlier visit left. `file` is the base, when it was a file that the browser could not keep. */
export async function resumeSaved(key: string, file?: File): Promise<void> {
  if (isTraining()) return;
  try {
    const made = await trainer();
    const saved: Restored = await exclusive(() => made.restore(key));
    const source = file ? { file, name: file.name } : saved.base;
    if (!source) throw new PageError("data", `The base ${saved.baseName} was a file; choose it again to go on.`);
    const info = await loadBase(source);
    if (!info) return;
    if (info.contentHash !== saved.contentHash) {
      throw new PageError("adapter", `This is not the base that the run was made on (${saved.baseName}); choose that file.`);
    }
    await restoreRows(saved.rows, saved.heldOut ?? null);
    await takeSettings(asForm(saved.settings));
    const rows = { train: saved.rows, heldOut: saved.heldOut ?? null, name: chosenRows()?.name ?? "" };
    const run = newRun(asForm(saved.settings), rows, key);
    run.bestStep = saved.best?.step ?? null;
    await drive(run, { resume: saved.checkpoint });
  } catch (error) {
    report(error);
  }
}

/** Forgets a saved run. */
export async function discardSaved(key: string): Promise<void> {
  try {
    const made = await trainer();
    await exclusive(() => made.discard(key));
    dropCurves(key);
    announce("The saved run was discarded.");
  } catch (error) {
    report(error);
  }
  await refreshStorage();
}

/** Takes a run off the table. */
export function removeRun(run: Run): void {
  if (run.id === get().runs.active || isJobUnderWay(run)) return;
  const list = get().runs.list.filter((each) => each !== run);
  update("runs", { list });
  if (get().trial.adapter === run.id) update("trial", { adapter: "" });
}

/** Shows the figures of a run, where none trains alone. */
export function selectRun(run: Run): void {
  update("runs", { selected: run.id });
}

/** Shows or hides a run's curves. */
export function toggleShown(run: Run): void {
  run.shown = !run.shown;
  touch("runs");
}

/** The adapter in training, between two of its steps. */
export async function currentAdapter(): Promise<AdapterFile[]> {
  const made = await trainer();
  return exclusive(() => made.exportAdapter());
}

/** An adapter in another format, between two steps of a run. */
export async function adapterAs(files: AdapterFile[], format: AdapterFormat): Promise<AdapterFile[]> {
  const made = await trainer();
  return exclusive(() => made.exportAdapter(files, { format }));
}

/** Base and adapter as one GGUF file, its changed weights as f16: in 4 bits most of the change would be rounded away. */
export async function mergedModel(files: AdapterFile[], onProgress: (progress: Progress) => void): Promise<MergedModel> {
  const made = await trainer();
  return exclusive(() => made.exportModel(files, { format: "f16", onProgress }));
}

/** Everything needed to go on with the run that is in the Worker. */
export async function currentCheckpoint(): Promise<Uint8Array> {
  const made = await trainer();
  return exclusive(() => made.checkpoint());
}

async function readMemory(run: Run): Promise<void> {
  if (run.state !== "running") return;
  try {
    const { gpu, wasm } = await (await trainer()).memory();
    run.usedBytes = gpu;
    run.wasmBytes = wasm;
    touch("runs");
  } catch {
    // Busy, or lost: the next tick or the run's own error tells more.
  }
}

function stopClock(run: Run): void {
  if (run.clock > 0) run.seconds += (Date.now() - run.clock) / 1000;
  run.clock = 0;
}
