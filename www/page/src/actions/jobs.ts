/** Several jobs at once over the loaded base: a sweep, or one by one. */

import type { AdapterFile, JobOptions, Jobs, JobsEvent, JobStatus, Restored } from "weblora";
import { asForm, type FormSettings } from "../lib/settings";
import { alertUser, announce } from "../lib/announce";
import { dropCurves, keepCurves } from "../lib/history";
import { loss, plural, short } from "../lib/format";
import { PageError, problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { chosenRows, get, isTraining, runSettings, touch, update, type Run } from "../state";
import { dismissNotice, report, trainer } from "../trainer";
import { loadBase, refreshStorage } from "./base";
import { note, take } from "./events";
import { showFinale } from "./finale";
import { formSettled } from "./form";
import { newJob } from "./newrun";
import { replan } from "./plan";
import { restoreRows } from "./rows";

/** How jobs that do badly end early. */
export type EarlyEnd = "none" | "median" | "asha";

/** What a sweep tries. */
export interface SweepWish {
  rates: number[];
  ranks: number[];
  end: EarlyEnd;
}

let current: Jobs | null = null;

/** Evaluations of a job that early stopping compares, when the settings say nothing. */
const LOOKS = 8;

/** Starts one job for every rate and rank, or adds them to those that train. */
export async function startSweep({ rates, ranks, end }: SweepWish): Promise<void> {
  await guarded(async () => {
    const made = await trainer();
    const prefix = freshName("sweep");
    const trials = await exclusive(() => made.sweep({ name: prefix, keys: { lr: rates, rank: ranks } }));
    const jobs = trials.map(({ name, assigned }) => jobFromForm(name, asForm(assigned), prefix));
    await begin(jobs, end);
  });
}

/** Starts the form's settings as a job, or adds it to those that train. */
export async function startJob(): Promise<void> {
  await guarded(async () => {
    await formSettled();
    const settings = runSettings();
    const lr = Number(settings["lr"] ?? get().form.table.find(({ key }) => key === "lr")?.default);
    const rank = String(settings["rank"] ?? get().form.table.find(({ key }) => key === "rank")?.default);
    const name = freshName(`${String(settings["method"])}-r${rank}-lr${short(lr)}`);
    await begin([jobFromForm(name, {}, null)], "none");
  });
}

/** A name that no run of this visit has. */
function freshName(wanted: string): string {
  const taken = new Set(get().runs.list.flatMap(({ job }) => (job ? [job.name, job.group ?? job.name] : [])));
  for (let i = 1; ; i += 1) {
    const name = i === 1 ? wanted : `${wanted}-${i}`;
    if (!taken.has(name)) return name;
  }
}

function jobFromForm(name: string, assigned: FormSettings, group: string | null): JobOptions {
  const { form } = get();
  const all = chosenRows();
  if (!all) throw new PageError("data", "Choose rows to train on.");
  const settings: FormSettings = { ...runSettings(), ...assigned };
  // Jobs are compared by their loss on rows that none of them trains on.
  if (!all.heldOut && !(Number(settings["evalSplit"]) > 0)) settings["evalSplit"] = 0.1;
  if (!(Number(settings["evalEvery"]) > 0)) settings["evalEvery"] = Math.max(1, Math.round((get().plan.plan?.steps ?? LOOKS) / LOOKS));
  return {
    name, settings, rows: all.train,
    ...(all.heldOut ? { heldOut: all.heldOut } : {}),
    ...(form.init ? { initAdapter: form.init.files } : {}),
    ...(group === null ? {} : { group }),
  };
}

/** The scheduler's settings. */
function scheduler(end: EarlyEnd): FormSettings {
  const plan = get().plan.plan;
  const steps = plan?.steps ?? 60;
  const rows = plan?.rows ?? 1024;
  const settings: FormSettings = { stepTokens: Math.max(rows, Math.min(4096, 4 * rows)) };
  if (end === "median") settings["earlyStop"] = { rules: ["median"], grace: Math.max(1, Math.round(steps / 4)) };
  if (end === "asha") settings["earlyStop"] = { rules: ["asha"], firstRung: Math.max(1, Math.round(steps / 9)), eta: 3 };
  return settings;
}

async function begin(jobs: JobOptions[], end: EarlyEnd): Promise<void> {
  const rows = chosenRows() as Run["rows"];
  const set = get().runs.jobs ?? `jobs-${Date.now().toString(36)}`;
  const runs = jobs.map(({ name, settings, group }) => newJob(set, name, group ?? null, asForm(settings), rows));
  if (current && get().runs.jobs) return join(current, jobs, runs);
  if (isTraining()) throw new PageError("busy", "A run is under way; stop it before starting jobs.");
  await drive(set, jobs, runs, scheduler(end));
}

/** Adds to jobs that train. */
async function join(to: Jobs, jobs: JobOptions[], runs: Run[]): Promise<void> {
  for (const [i, job] of jobs.entries()) {
    const run = runs[i];
    if (!run) continue;
    update("runs", { list: [...get().runs.list, run] });
    try {
      await to.add(job);
    } catch (error) {
      fail(run, problem(error).message);
    }
  }
  announce(`${plural(jobs.length, "job")} added.`);
}

/** Trains jobs until none can go on. */
async function drive(set: string, jobs: JobOptions[], runs: Run[], settings: FormSettings): Promise<void> {
  dismissNotice();
  update("runs", { list: [...get().runs.list, ...runs], jobs: set, selected: null, held: null });
  try {
    const made = await trainer();
    await exclusive(async () => undefined);
    current = made.jobs(jobs, {
      scheduler: settings, autosave: set,
      onProgress: ({ phase, done, total }) => update("base", { progress: done < total ? { phase, done, total } : null }),
    });
    touch("runs");
    for await (const event of current) told(set, event);
    takeStatus(set, await current.done);
    await keepAdapters(set);
  } catch (error) {
    const found = problem(error);
    for (const run of ofSet(set)) if (!isOver(run)) fail(run, found.message);
    update("notice", { kind: "error", text: found.message, detail: found.causes });
    alertUser(found.message);
  } finally {
    current = null;
    update("base", { progress: null });
    update("runs", { jobs: null });
    void refreshStorage();
    replan();
  }
}

const ofSet = (set: string): Run[] => get().runs.list.filter(({ job }) => job?.set === set);

const isOver = ({ state }: Run): boolean => state === "done" || state === "stopped" || state === "failed";

function told(set: string, event: JobsEvent): void {
  switch (event.event) {
    case "jobs":
      announce(`${plural(event.jobs, "job")} on ${event.adapter}.`);
      return;
    case "status":
      return takeStatus(set, event.jobs);
  }
  const run = ofSet(set).find(({ job }) => job?.name === event.job);
  if (!run) {
    if (event.event === "warning") update("notice", { kind: "info", text: event.message, detail: [] });
    return;
  }
  if (event.event === "schedule") note(run, `${event.action.charAt(0).toUpperCase()}${event.action.slice(1)}: ${event.reason}.`);
  else if (event.event === "job_failed") fail(run, event.reason);
  else if (event.event === "warning") note(run, `Warning: ${event.message}`);
  else take(run, event);
}

function takeStatus(set: string, jobs: JobStatus[]): void {
  for (const status of jobs) {
    const run = ofSet(set).find(({ job }) => job?.name === status.job);
    if (!run?.job) continue;
    const wasOver = isOver(run);
    if (!(run.state === "stopping" && status.state !== "stopped" && status.state !== "done")) run.state = status.state;
    if (!wasOver && isOver(run)) stopClock(run);
    [run.step, run.total, run.bestStep] = [status.step, status.steps, status.bestStep];
    run.job = { ...run.job, reason: status.reason, secondsLeft: status.secondsLeft, best: status.best };
  }
  touch("runs");
}

function stopClock(run: Run): void {
  if (run.clock > 0) run.seconds += (Date.now() - run.clock) / 1000;
  run.clock = 0;
}

function fail(run: Run, reason: string): void {
  run.state = "failed";
  run.problem = { code: "job", message: reason, causes: [] };
  if (run.job) run.job = { ...run.job, reason };
  note(run, `Failed: ${reason}`);
  announce(`Job ${run.name} failed.`);
}

/** All adapters at the end; the best one is offered to try. */
async function keepAdapters(set: string): Promise<void> {
  const jobs = current;
  if (!jobs) return;
  for (const run of ofSet(set)) {
    if (run.step === 0 || run.state === "failed" || run.adapter) continue;
    run.adapter = await exclusive(() => jobs.exportAdapter(run.name));
    const better = run.bestStep !== null && run.bestStep > 0 && run.bestStep < run.step;
    run.best = better ? await exclusive(() => jobs.exportAdapter(run.name, "best")) : null;
  }
  const best = ofSet(set).find(({ job }) => job?.best);
  const words = best ? ` The best is ${best.name}, held-out loss ${loss(lowest(best))}.` : "";
  announce(`All jobs are over.${words}`);
  for (const run of ofSet(set)) keepCurves(run.id, run.series);
  if (best) {
    void showFinale(best);
    update("runs", { selected: best.id });
    update("trial", { adapter: best.best ? `${best.id}:best` : best.id });
  }
}

/** A run's lowest held-out loss. */
export const lowest = (run: Run): number | null => {
  const measured = run.series.columns.eval.filter((value) => value !== null);
  return measured.length ? Math.min(...measured) : null;
};

/** The adapter of a job as it is now. */
export async function jobAdapter(run: Run): Promise<AdapterFile[]> {
  const jobs = current;
  if (!jobs) throw new PageError("adapter", `The adapter of ${run.name} is not at hand.`);
  return exclusive(() => jobs.exportAdapter(run.name));
}

/** Ends a job; the others go on. */
export async function stopJob(run: Run): Promise<void> {
  run.state = "stopping";
  touch("runs");
  await guarded(async () => current?.stop(run.name));
}

/** Moves a job to host memory. */
export const pauseJob = (run: Run): Promise<void> => guarded(async () => current?.pause(run.name));

/** Lets a paused job go on. */
export const resumeJob = (run: Run): Promise<void> => guarded(async () => current?.resume(run.name));

/** Ends all jobs. */
export async function stopJobs(): Promise<void> {
  for (const run of ofSet(get().runs.jobs ?? "")) if (!isOver(run)) run.state = "stopping";
  touch("runs");
  await guarded(async () => current?.stop());
}

/** Goes on with the jobs that an earlier visit left. `file` is the base, when it was a file that the browser could not keep. */
export async function resumeJobs(set: string, file?: File): Promise<void> {
  if (isTraining()) return;
  await guarded(async () => {
    const made = await trainer();
    const saves = get().storage.saves.filter(({ jobs }) => jobs === set);
    const saved: [boolean, Restored][] = [];
    for (const { key, state } of saves) saved.push([state === "open", await exclusive(() => made.restore(key))]);
    const [, first] = saved[0] ?? [];
    if (!first) return;
    const source = file ? { file, name: file.name } : first.base;
    if (!source) throw new PageError("data", `The base ${first.baseName} was a file; choose it again to go on.`);
    const info = await loadBase(source);
    if (!info) return;
    if (info.contentHash !== first.contentHash) throw new PageError("adapter", `This is not the base that the jobs were made on (${first.baseName}); choose that file.`);
    await restoreRows(first.rows, first.heldOut ?? null);
    const jobs: JobOptions[] = [];
    const runs: Run[] = [];
    for (const [open, { settings, rows, heldOut, job, checkpoint, adapter, best }] of saved) {
      if (!job) continue;
      const run = newJob(set, job.name, job.group ?? null, asForm(settings), { train: rows, heldOut: heldOut ?? null, name: chosenRows()?.name ?? "" }, true);
      runs.push(run);
      if (open) {
        const { curve, ...known } = job;
        jobs.push({ ...known, settings, rows, ...(heldOut ? { heldOut } : {}), resume: { checkpoint, ...(curve === undefined ? {} : { curve }) } });
      } else {
        const save = saves.find(({ key }) => key === run.id);
        Object.assign(run, { state: save?.state ?? "done", step: save?.step ?? 0, total: save?.total ?? 0, adapter: adapter ?? null, best: best?.files ?? null, bestStep: best?.step ?? null });
      }
    }
    await drive(set, jobs, runs, scheduler("none"));
  });
}

/** Forgets jobs that an earlier visit left. */
export async function discardJobs(set: string): Promise<void> {
  await guarded(async () => {
    const made = await trainer();
    for (const { key, jobs } of get().storage.saves) {
      if (jobs !== set) continue;
      await exclusive(() => made.discard(key));
      dropCurves(key);
    }
    announce("The saved jobs were discarded.");
  });
  await refreshStorage();
}

async function guarded(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    report(error);
  }
}
