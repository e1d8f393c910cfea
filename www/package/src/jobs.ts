// Several jobs in the Worker: fused steps, saves by job, and all of them laid out anew where one is added that is larger, or the device was lost.
// Who trains when is decided by the library's scheduler.

import type { Engine } from "../wasm/weblora.js";
import { WebloraError } from "./errors.js";
import type { Device } from "./gpu.js";
import type { Item } from "./protocol.js";
import type { Queue } from "./queue.js";
import { RunStore } from "./storage/runs.js";
import type { JobOptions, JobsEvent, JobsOptions, Settings } from "./crate_types.js";
import type { AdapterFile, JobStatus, Progress } from "./types.js";

/** As for a run: what a lost device or a closed tab can cost, in milliseconds. */
const SAVE_AT_LEAST = 30_000;
/** Losses of the device without a step in between, after which it is no use. */
const PATIENCE = 3;
/** Milliseconds between two events that say where all jobs stand. */
const STATUS_EVERY = 250;

type State = { checkpoint: Uint8Array<ArrayBuffer>; curve: string | undefined };

/** A state and the steps that were done then. */
type Saved = State & { step: number };

/** A job and what is kept of it. */
interface Entry {
  options: JobOptions;
  store?: RunStore;
  saved?: Saved;
  /** What was saved before `saved`, until a loss has spoken for that. */
  earlier?: Saved;
  /** Paused by request. */
  paused: boolean;
  /** It is in the engine. */
  held: boolean;
  over: boolean;
  status: JobStatus;
  end?: AdapterFile[];
  best?: AdapterFile[];
}

export class JobsRun {
  state: "running" | "done" | "failed" = "running";
  readonly #device: Device;
  readonly #queue: Queue;
  readonly #options: Omit<JobsOptions, "onProgress">;
  readonly #tell: (item: Item) => void;
  readonly #progress: (phase: Progress["phase"], done: number, total: number) => void;
  readonly #entries = new Map<string, Entry>();
  #savedAt = 0;
  #toldAt = 0;
  #saveSoon = false;
  #halted = false;
  #wake: (() => void) | undefined;

  constructor(
    device: Device, queue: Queue, jobs: JobOptions[], options: Omit<JobsOptions, "onProgress">, tell: (item: Item) => void,
    progress: (phase: Progress["phase"], done: number, total: number) => void,
  ) {
    [this.#device, this.#queue, this.#options, this.#tell, this.#progress] = [device, queue, options, tell, progress];
    for (const job of jobs) this.#enter(job);
  }

  async run(): Promise<JobStatus[]> {
    try {
      const tune = this.#options.tune ?? this.#device.worthTuning;
      await this.#queue.run(() => this.#begin(tune));
      if (tune) await this.#device.remember();
      await this.#train();
      this.#tellStatus(true);
      this.#become("done");
      return this.status();
    } catch (error) {
      this.#become("failed");
      throw error;
    } finally {
      for (const { store } of this.#entries.values()) store?.close();
    }
  }

  /** Takes in a job between two steps. */
  async add(job: JobOptions): Promise<void> {
    if (this.state !== "running") throw new WebloraError("config", "these jobs are over; start new ones");
    const entry = this.#enter(job);
    try {
      await this.#queue.run(async () => {
        try {
          this.#events(this.#device.engine.addJob(engineJob(entry)));
          entry.held = true;
        } catch (error) {
          if (WebloraError.from(error).code !== "limit") throw error;
          await this.#saveAll();
          await this.#begin(false);
          if (entry.status.state === "failed") throw new WebloraError("config", entry.status.reason);
        }
        await this.#open(entry);
      });
    } catch (error) {
      this.#entries.delete(job.name);
      throw error;
    }
    this.#wake?.();
  }

  /** Asks the scheduler, which answers at the next step. */
  async ask(what: "pause" | "resume" | "stop", name?: string): Promise<void> {
    const named = name === undefined ? [...this.#entries.keys()] : [name];
    await this.#queue.run(async () => {
      for (const each of named) {
        const entry = this.#known(each);
        if (entry.over) continue;
        this.#device.engine.askJob(each, what);
        entry.paused = what === "pause" || (what !== "resume" && entry.paused);
      }
    });
    this.#saveSoon ||= what === "pause";
    this.#wake?.();
  }

  status(): JobStatus[] {
    const all = [...this.#entries.values()].map(({ status }) => status);
    const score = ({ state, bestEval }: JobStatus) => (state === "failed" ? Infinity : (bestEval ?? Infinity));
    const best = new Map<string | undefined, JobStatus>();
    for (const status of all) {
      const before = best.get(status.judgedOn);
      if (Number.isFinite(score(status)) && (!before || score(status) < score(before))) best.set(status.judgedOn, status);
    }
    return all.map((status) => ({ ...status, best: best.get(status.judgedOn) === status }));
  }

  async export(engine: Engine, name: string, which: "current" | "best"): Promise<AdapterFile[]> {
    const { held, over, end, best } = this.#known(name);
    const copy = (files: AdapterFile[]) => files.map((file) => ({ ...file, bytes: file.bytes.slice() }));
    if (which === "best" && best) return copy(best);
    if (over && end) return copy(end);
    if (!held) throw new WebloraError("config", `job ${name} has no adapter; it failed before its first step`);
    return engine.exportJob(name);
  }

  /** Saves all and ends without ending the jobs: the page is about to go. */
  halt(): void {
    this.#halted = true;
    this.#wake?.();
  }

  /** Saves after the step in progress. */
  saveSoon(): void {
    this.#saveSoon = true;
  }

  /** On a new device: every job as it was last saved. */
  async restart(): Promise<void> {
    await this.#begin(false);
    this.#event({ event: "warning", message: "the GPU device was lost; the jobs go on on a new one from where they were last saved" });
  }

  #known(name: string): Entry {
    const entry = this.#entries.get(name);
    if (!entry) throw new WebloraError("config", `there is no job called ${name}; the jobs are ${[...this.#entries.keys()].join(", ")}`);
    return entry;
  }

  #enter(options: JobOptions): Entry {
    if (this.#entries.has(options.name)) throw new WebloraError("config", `there is a job called ${options.name} already; give the new one another name`);
    const { resume } = options;
    const saved = resume && { checkpoint: resume.checkpoint as Uint8Array<ArrayBuffer>, curve: resume.curve, step: 0 };
    const status: JobStatus = { job: options.name, state: "waiting", reason: "it has just been added", step: 0, steps: 0, loss: null, bestEval: null, bestStep: null, secondsLeft: null, best: false, soundStep: 0 };
    const entry: Entry = { options, paused: false, held: false, over: false, status, ...(saved ? { saved } : {}) };
    this.#entries.set(options.name, entry);
    return entry;
  }

  /** Lays out all jobs that are not over, each as it was last saved. */
  async #begin(tune: boolean): Promise<void> {
    const open = [...this.#entries.values()].filter(({ over }) => !over);
    for (const entry of this.#entries.values()) entry.held = false;
    for (const entry of open) entry.held = true;
    const options: Settings = this.#options.scheduler ?? {};
    const events = await this.#device.engine.startJobs({ jobs: open.map(engineJob), options, tune }, this.#progress);
    this.#events(events);
    for (const entry of open) {
      await this.#open(entry);
      // The very first update may destroy an adapter; what it began with is sound.
      if (!entry.over) entry.saved ??= { ...((await this.#device.engine.saveJob(entry.options.name)) as State), step: 0 };
      if (entry.paused && !entry.over) this.#device.engine.askJob(entry.options.name, "pause");
    }
    this.#savedAt = performance.now();
    this.#tellStatus(true);
  }

  /** Storage that fails takes nothing from a job but being saved. */
  async #open(entry: Entry): Promise<void> {
    const { autosave } = this.#options;
    const { base } = this.#device;
    if (autosave === undefined || !base || entry.store || entry.over) return;
    const { open, info } = base;
    const { name, settings, rows, heldOut, priority = 0, group } = entry.options;
    try {
      entry.store = await RunStore.open({
        key: `${autosave}/${name}`, settings: { ...settings, name }, rows, baseName: info.name, contentHash: info.contentHash,
        job: { set: autosave, name, priority, ...(group === undefined ? {} : { group }) },
        ...(heldOut ? { heldOut } : {}), ...(open.again ? { base: open.again } : {}), ...(open.url === undefined ? {} : { url: open.url }),
      }, entry.saved === undefined);
      const best = await entry.store.best();
      if (best) entry.best = best.files;
    } catch (error) {
      const known = WebloraError.from(error);
      if (known.code === "busy") throw known;
      this.#event({ event: "warning", job: name, message: `job ${name} is not saved: ${known.message}` });
    }
  }

  async #train(): Promise<void> {
    let losses = 0;
    let over = [...this.#entries.values()].every((entry) => entry.over);
    while (!over && !this.#halted) {
      const { engine } = this.#device;
      try {
        const step = await this.#queue.run(() => this.#advance());
        over = step.over;
        losses = 0;
        if (!step.wentOn && !over && !this.#halted) await new Promise<void>((wake) => (this.#wake = wake));
      } catch (error) {
        const known = WebloraError.from(error);
        if (known.code !== "device_lost" || ++losses > PATIENCE) throw known;
        await this.#queue.run(() => this.#recover(engine));
      }
    }
    if (!over) await this.#queue.run(() => this.#saveAll());
  }

  async #recover(lost: Engine): Promise<void> {
    // Another call may have met the loss before and made a new one.
    if (this.#device.engine !== lost) return;
    await this.#device.replace();
    await this.restart();
  }

  async #advance(): Promise<{ wentOn: boolean; over: boolean }> {
    const { engine } = this.#device;
    const { events, kept, wentOn, over } = await engine.stepJobs();
    for (const status of engine.jobStatus()) this.#known(status.job).status = status;
    for (const { job, kind, files } of kept) {
      const entry = this.#known(job);
      entry[kind] = files;
      await this.#try(entry, async (store) => (kind === "best" ? store.saveBest(entry.status.bestStep ?? 0, files) : store.saveEnd(entry.status.step, files)));
    }
    this.#events(events);
    for (const entry of this.#entries.values()) if (entry.held && !entry.over && ["done", "stopped", "failed"].includes(entry.status.state)) await this.#finish(engine, entry);
    const unsaved = [...this.#entries.values()].some(({ store, saved, over, status }) => store && !saved?.step && !over && status.step > 0);
    if (this.#saveSoon || unsaved || performance.now() - this.#savedAt > SAVE_AT_LEAST || !wentOn) await this.#saveAll();
    this.#tellStatus(!wentOn || events.some(({ event }) => event === "schedule" || event === "job_failed"));
    return { wentOn, over };
  }

  /** A job is over: its last checkpoint and how it ended are kept with its adapter. */
  async #finish(engine: Engine, entry: Entry): Promise<void> {
    entry.over = true;
    const { status, options } = entry;
    // What is left of it in the engine is its adapter, and that is kept; the checkpoint is the last that was saved.
    if (status.step > 0 && status.state !== "failed") entry.saved ??= { ...(await this.#lastState(engine, options.name)), step: status.step };
    if (status.state === "failed") {
      prove(entry);
      const saved = entry.earlier ?? entry.saved;
      if (saved) entry.saved = saved;
    }
    if (entry.saved) await this.#write(entry);
    else await this.#try(entry, (store) => store.discard());
    entry.store?.close();
    delete entry.store;
    delete entry.saved;
    delete entry.earlier;
    if (status.state === "failed") this.#event({ event: "job_failed", job: options.name, reason: status.reason });
  }

  async #lastState(engine: Engine, name: string): Promise<State> {
    try {
      return (await engine.saveJob(name)) as State;
    } catch {
      return { checkpoint: new Uint8Array(0), curve: undefined };
    }
  }

  async #saveAll(): Promise<void> {
    this.#saveSoon = false;
    for (const entry of this.#entries.values()) if (entry.held && !entry.over) await this.#save(this.#device.engine, entry);
    this.#savedAt = performance.now();
  }

  async #save(engine: Engine, entry: Entry): Promise<void> {
    const { name } = entry.options;
    prove(entry);
    if (entry.saved) entry.earlier ??= entry.saved;
    entry.saved = { ...((await engine.saveJob(name)) as State), step: entry.status.step };
    await this.#write(entry);
    this.#event({ event: "checkpoint", job: name, step: entry.status.step, path: entry.store?.key ?? "memory" });
  }

  async #write(entry: Entry): Promise<void> {
    const { saved, status } = entry;
    if (!saved) return;
    const { steps: total, loss, bestEval, state } = status;
    const how = state === "done" || state === "stopped" || state === "failed" ? state : "open";
    const { curve } = saved;
    // One that failed is taken up from its checkpoint; the adapter of one that ended is of its last step.
    const step = state === "failed" ? saved.step : status.step;
    const scores = { ...(loss === null ? {} : { loss }), ...(bestEval === null ? {} : { bestEval }), ...(curve === undefined ? {} : { curve }) };
    await this.#try(entry, (store) => store.save({ step, total, state: how, ...scores }, saved.checkpoint));
  }

  async #try(entry: Entry, work: (store: RunStore) => Promise<void>): Promise<void> {
    try {
      if (entry.store) await work(entry.store);
    } catch (error) {
      const { message } = WebloraError.from(error);
      this.#event({ event: "warning", job: entry.options.name, message: `job ${entry.options.name} is not saved: ${message}` });
    }
  }

  #events(events: JobsEvent[]): void {
    for (const event of events) {
      if (event.event === "start") {
        const { status } = this.#known(event.job);
        [status.step, status.steps] = [event.resumed_at, event.steps];
      }
      // A job that the scheduler ends is told of when it is over; here are those that never began.
      if (event.event === "job_failed") {
        const entry = this.#known(event.job);
        entry.status = { ...entry.status, state: "failed", reason: event.reason };
        if (entry.status.steps === 0) entry.over = true;
        else continue;
      }
      this.#event(event);
    }
  }

  #event(event: JobsEvent): void {
    this.#tell({ event });
  }

  #tellStatus(now: boolean): void {
    if (!now && performance.now() - this.#toldAt < STATUS_EVERY) return;
    this.#toldAt = performance.now();
    this.#event({ event: "status", jobs: this.status() });
  }

  #become(state: JobsRun["state"]): void {
    this.state = state;
    this.#tell({ state });
  }
}

/** A job as the engine takes it. */
function engineJob({ options, saved }: Entry) {
  const { resume: _, ...rest } = options;
  return { ...rest, checkpoint: saved?.checkpoint, curve: saved?.curve };
}

/** What was saved last counts from the first step whose loss speaks for it. */
function prove(entry: Entry): void {
  if (entry.status.soundStep > (entry.saved?.step ?? 0)) delete entry.earlier;
}
