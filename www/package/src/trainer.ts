// What a page holds: a Trainer, which owns one Worker, which owns the wasm module and the GPU device.

import { Caller } from "./caller.js";
import { WebloraError } from "./errors.js";
import type { Item } from "./protocol.js";
import type * as C from "./crate_types.js";
import { eventFromCrate, fromCrate, jobToCrate, savedFromCrate, schedulerToCrate, settingFromCrate, sweepToCrate, tablesFromCrate, toCrate, trialFromCrate } from "./names.js";
import { Stream } from "./stream.js";
import { support } from "./support.js";
import type {
  AdapterChoice, AdapterFacts, AdapterFile, AdapterFormat, AdapterInfo, Analysis, Autosave, BaseInfo, BaseSource, CacheEntry, ChatMessage, CreateOptions, DoneEvent, Evaluation,
  GenerateOptions, JobOptions, Jobs, JobsEvent, JobsOptions, JobStatus, JobTables, Knot, Link, LoadOptions, MemoryUse, Merged, MergedModel, MergeOptions, MethodInfo, Plan, Restored, Retrieval, RetrievalOptions, RetrievalShare, RowPreview, Rows, Setting, Settings, Support,
  Sweep, TrainEvent, Training, TrainOptions, Trial, WeightFormat,
} from "./types.js";

/** What goes to the Worker of a run's options. */
type RunOptions = Omit<TrainOptions, "onProgress" | "signal">;

/** Trains adapters on one base, in a Worker. */
export class Trainer {
  /** The GPU in use. */
  readonly adapter: AdapterInfo;
  /** Models kept in this origin's storage. */
  readonly cache: { list(): Promise<CacheEntry[]>; remove(key: string): Promise<void>; estimate(): Promise<{ usage: number; quota: number }> };
  readonly #caller: Caller;
  readonly #onHidden: () => void;

  private constructor(caller: Caller, adapter: AdapterInfo) {
    this.#caller = caller;
    this.adapter = adapter;
    this.cache = {
      list: () => caller.call("cacheList", []),
      remove: (key) => caller.call("cacheRemove", [key]),
      estimate: () => caller.call("cacheEstimate", []),
    };
    // A hidden page may be closed by the system without another word.
    this.#onHidden = () => {
      if (globalThis.document?.visibilityState === "hidden") caller.call("save", []).catch(() => undefined);
    };
    globalThis.document?.addEventListener("visibilitychange", this.#onHidden);
  }

  /** Starts the Worker and opens a GPU device. */
  static async create(options: CreateOptions = {}): Promise<Trainer> {
    const found = await support();
    if (!found.webgpu) throw new WebloraError("no_webgpu", found.reason ?? "this browser has no WebGPU");
    const caller = new Caller(new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "weblora" }));
    const { wasmUrl, ...rest } = options;
    try {
      const adapter = await caller.call("create", [
        { ...rest, ...(wasmUrl === undefined ? {} : { wasmUrl: new URL(wasmUrl, globalThis.location?.href).href }) },
      ]);
      return new Trainer(caller, adapter);
    } catch (error) {
      caller.terminate();
      throw error;
    }
  }

  /** Whether this browser can train, and why not. */
  static support(): Promise<Support> {
    return support();
  }

  /** Opens a base model: its header, tokenizer and template. Weights go to the GPU when something is done with them. */
  loadBase(source: BaseSource, options: LoadOptions = {}): Promise<BaseInfo> {
    const { signal, onProgress, ...rest } = options;
    return this.#caller.call("loadBase", [source, rest], { signal, onProgress });
  }

  /** The methods that an adapter can be trained with. */
  methods(): Promise<MethodInfo[]> {
    return this.#caller.call("methods", []);
  }

  /** The settings under which the embedded model learns the embedded rows in a minute or two. */
  demoSettings(): Promise<Settings> {
    return this.#caller.call("demoSettings", []).then(fromCrate);
  }

  /** The settings that a run of `method` takes. */
  settings(method: string): Promise<Setting[]> {
    return this.#caller.call("settings", [method]).then((rows) => rows.map(settingFromCrate));
  }

  /** The first rows as the model will see them. */
  preview(rows: Rows, settings: Settings = {}, limit = 20): Promise<{ rows: RowPreview[]; total: number; warnings: string[] }> {
    return this.#caller.call("preview", [rows, toCrate(settings), limit]);
  }

  /** What a run would take on this device; nothing is allocated. */
  plan(settings: Settings, rows?: Rows | Rows[]): Promise<Plan> {
    return this.#caller.call("plan", [toCrate(settings), rows]);
  }

  /** Starts a run. One at a time: a second one fails with code "busy". Several sets of rows are mixed, a task each: by the settings `dataWeights` or
   *  `dataTemperature`, and with as many held-out sets, one for each of them in order. */
  train(settings: Settings, rows: Rows | Rows[], options: TrainOptions = {}): Training {
    const { onProgress, signal, ...rest } = options;
    // Asked for here, since a Worker may not: without it the browser may clear the storage when the disk gets full.
    if (rest.autosave !== undefined) void globalThis.navigator?.storage?.persist?.().catch(() => false);
    const training = new RunningTraining(this.#caller, toCrate(settings), rows, rest, onProgress);
    const stop = () => void training.stop().catch(() => undefined);
    signal?.addEventListener("abort", stop, { once: true });
    training.done.finally(() => signal?.removeEventListener("abort", stop)).catch(() => undefined);
    if (signal?.aborted) stop();
    return training;
  }

  /** Starts jobs that share the base and train together. Each is what it would be alone; one that fails does so alone. Nothing else trains meanwhile. */
  jobs(jobs: JobOptions[], options: JobsOptions = {}): Jobs {
    const { onProgress, scheduler, ...rest } = options;
    if (rest.autosave !== undefined) void globalThis.navigator?.storage?.persist?.().catch(() => false);
    const known = { ...rest, ...(scheduler ? { scheduler: schedulerToCrate(scheduler) } : {}) };
    return new RunningJobs(this.#caller, jobs.map(jobToCrate), known, onProgress);
  }

  /** The jobs that a sweep makes: names, and the settings that differ. */
  sweep(sweep: Sweep): Promise<Trial[]> {
    return this.#caller.call("sweep", [sweepToCrate(sweep)]).then((trials) => trials.map(trialFromCrate));
  }

  /** Policies, rules of early stopping and ways to search, for a form. */
  jobTables(): Promise<JobTables> {
    return this.#caller.call("jobTables", []).then(tablesFromCrate);
  }

  /** Ties a knot now: the link of a chain that trains is frozen, and the next one begins. The event comes in the run's events, too. */
  tieKnot(): Promise<Knot> {
    return this.#caller.call("mergeLink", []).then((knot) => eventFromCrate<Knot>(knot));
  }

  /** @deprecated The old name of `tieKnot`; it goes with the next minor version. */
  mergeLink(): Promise<Knot> {
    console.warn("weblora: mergeLink is called tieKnot now");
    return this.tieKnot();
  }

  /** Text from the model, piece by piece. While a run trains, its steps wait for the answer. */
  async *generate(prompt: string | ChatMessage[], options: GenerateOptions = {}): AsyncGenerator<string, void, undefined> {
    const { signal, onProgress, onWarning, onEnd, ...rest } = options;
    const stop = new AbortController();
    const stream = new Stream<string>();
    const onItem = (item: Item) => {
      if ("piece" in item) stream.push(item.piece);
      if ("warning" in item) onWarning?.(item.warning);
    };
    const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    this.#caller.call("generate", [prompt, rest], { signal: both, onProgress, onItem }).then(
      (written) => {
        onEnd?.(written);
        stream.finish();
      },
      (error: unknown) => stream.finish(error),
    );
    try {
      yield* stream;
    } finally {
      // A reader that stops reading (`break`) stops the model.
      stop.abort();
    }
  }

  /** Mean loss of rows, and accuracy of those with choices. */
  evaluate(rows: Rows, options: { adapter?: AdapterChoice; strictBase?: boolean; signal?: AbortSignal } = {}): Promise<Evaluation> {
    return this.#caller.call("evaluate", [rows, options.adapter ?? "none", options.strictBase ?? false], { signal: options.signal });
  }

  /** What the model finds in long texts, by length and by depth, with a heat map. Every length and depth is a call of its own, so that other calls get
   *  their turn; `signal` ends it between two of them. */
  async retrieve(options: RetrievalOptions): Promise<Retrieval> {
    const { task, lengths, depths = [0, 0.5, 1], trials = 4, adapter = "none", strictBase = false, signal, onCell } = options;
    const cells: RetrievalShare[] = [];
    for (const depth of depths) {
      for (const length of lengths) {
        const right = await this.#caller.call("retrieve", [{ task, length, depth, trials, strictBase }, adapter], { signal });
        const cell = { length, depth, right, trials };
        cells.push(cell);
        onCell?.(cell);
      }
    }
    const right = cells.reduce((sum, cell) => sum + cell.right, 0);
    const shares = cells.map((cell) => cell.right / Math.max(1, cell.trials));
    const picture = await this.#caller.call("retrievalPicture", [task, lengths, depths, shares]);
    return { cells, share: right / Math.max(1, cells.length * trials), picture };
  }

  /** The adapter being trained, as the files of a PEFT folder; "best": as it was at the lowest held-out loss of a run with `evalEvery`; or one whose
   *  files are given. With the format "gguf" it is one file, adapter.gguf, that llama.cpp (`--lora`) and Ollama (`ADAPTER`) load beside a GGUF of the
   *  loaded base; with "mixlora-bin" a MixLoRA adapter for its authors' programs. */
  exportAdapter(which: "current" | "best" | AdapterFile[] = "current", options: { format?: AdapterFormat } = {}): Promise<AdapterFile[]> {
    return this.#caller.call("exportAdapter", [which, options.format ?? "peft"]);
  }

  /** Base and adapter as one GGUF file for any program, written to the origin's storage piece by piece. `format` is how the changed weights are stored;
   *  without it they keep that of the base, which may round most of the update away: `retention` says how much is left. */
  exportModel(which: "current" | "best" | AdapterFile[] = "current", options: { format?: WeightFormat; signal?: AbortSignal; onProgress?: LoadOptions["onProgress"] } = {}): Promise<MergedModel> {
    const { format, signal, onProgress } = options;
    return this.#caller.call("exportModel", [which, format], { signal, onProgress });
  }

  /** What an adapter is, and whether it belongs to the loaded base. One that was trained on another file of it (Q4 for F16) has a warning, or is refused
   *  with `strictBase`; one of other shapes is refused. */
  checkAdapter(adapter: AdapterFile[], options: { strictBase?: boolean } = {}): Promise<AdapterFacts> {
    return this.#caller.call("checkAdapter", [adapter, options.strictBase ?? false]);
  }

  /** What an adapter is made of: spectra and effective ranks by layer and projection, and of a chain its links. "current" is the run's own, for
   *  which the scales of MultiLoRA's modules are known, too. */
  analyze(adapter: AdapterFile[] | "current"): Promise<Analysis> {
    return this.#caller.call("analyze", [adapter]);
  }

  /** How large the learnable scales of the run's modules are on average, module by module; empty where its method has none. Cheap enough to ask while
   *  it trains. */
  moduleScales(): Promise<number[]> {
    return this.#caller.call("moduleScales", []);
  }

  /** The links of a chain, oldest first; none of an adapter that is no chain. */
  links(adapter: AdapterFile[]): Promise<Link[]> {
    return this.#caller.call("links", [adapter]);
  }

  /** Every link of a chain as an adapter of its own, oldest first. */
  splitLinks(adapter: AdapterFile[]): Promise<AdapterFile[][]> {
    return this.#caller.call("splitLinks", [adapter]);
  }

  /** One adapter made of several of one base, exactly: chains and plain adapters become one chain, whose links stay apart; with weights their sum.
   *  One alone with fewer links (`drop`) or ranks. */
  mergeAdapters(adapters: AdapterFile[][], options: MergeOptions = {}): Promise<Merged> {
    return this.#caller.call("mergeAdapters", [adapters, options]);
  }

  /** The whole state of the run: with it, `train` goes on bit for bit. */
  checkpoint(): Promise<Uint8Array> {
    return this.#caller.call("checkpoint", []);
  }

  /** Runs saved in this origin's storage, newest first. */
  autosaves(): Promise<Autosave[]> {
    return this.#caller.call("autosaves", []).then((saves) => saves.map(savedFromCrate));
  }

  /** A saved run, ready to go on. */
  restore(key: string): Promise<Restored> {
    return this.#caller.call("restore", [key]).then(savedFromCrate);
  }

  /** Deletes a saved run. */
  discard(key: string): Promise<void> {
    return this.#caller.call("discard", [key]);
  }

  /** Memory in use. */
  memory(): Promise<MemoryUse> {
    return this.#caller.call("memory", []);
  }

  /** Destroys the GPU device as a driver reset would: for tests of what happens then. */
  simulateDeviceLoss(): Promise<void> {
    return this.#caller.call("simulateDeviceLoss", []);
  }

  /** Saves a run that is autosaved, gives back all memory and ends the Worker. */
  async free(): Promise<void> {
    globalThis.document?.removeEventListener("visibilitychange", this.#onHidden);
    await this.#caller.call("close", []).catch(() => undefined);
    this.#caller.terminate();
  }

  /** `await using trainer = await Trainer.create()` frees it at the end of the block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.free();
  }
}

class RunningTraining implements Training {
  readonly job: string;
  readonly done: Promise<DoneEvent>;
  readonly #events = new Stream<TrainEvent>();
  readonly #caller: Caller;
  #state: Training["state"] = "running";

  constructor(caller: Caller, settings: C.Settings, rows: Rows | Rows[], options: RunOptions, onProgress: TrainOptions["onProgress"]) {
    this.#caller = caller;
    this.job = options.job ?? (typeof settings["name"] === "string" ? settings["name"] : "main");
    const onItem = (item: Item) => {
      if ("event" in item) this.#events.push(eventFromCrate<TrainEvent>(item.event));
      if ("state" in item) this.#state = item.state;
    };
    this.done = caller.call("train", [settings, rows, options], { onProgress, onItem }).then((done) => eventFromCrate<DoneEvent>(done));
    this.done.then(
      () => this.#events.finish(),
      (error: unknown) => {
        this.#state = "failed";
        this.#events.finish(error);
      },
    );
  }

  get state(): Training["state"] {
    return this.#state;
  }

  pause(): Promise<void> {
    return this.#caller.call("pause", []);
  }

  resume(): Promise<void> {
    return this.#caller.call("resume", []);
  }

  stop(): Promise<void> {
    return this.#caller.call("stop", []);
  }

  [Symbol.asyncIterator](): AsyncIterator<TrainEvent> {
    return this.#events[Symbol.asyncIterator]();
  }
}

class RunningJobs implements Jobs {
  readonly done: Promise<JobStatus[]>;
  readonly #events = new Stream<JobsEvent>();
  readonly #caller: Caller;
  #state: Jobs["state"] = "running";

  constructor(caller: Caller, jobs: C.JobOptions[], options: Omit<C.JobsOptions, "onProgress">, onProgress: JobsOptions["onProgress"]) {
    this.#caller = caller;
    const onItem = (item: Item) => {
      if ("event" in item) this.#events.push(eventFromCrate<JobsEvent>(item.event));
      if ("state" in item) this.#state = item.state as Jobs["state"];
    };
    this.done = caller.call("jobs", [jobs, options], { onProgress, onItem });
    this.done.then(
      () => this.#events.finish(),
      (error: unknown) => {
        this.#state = "failed";
        this.#events.finish(error);
      },
    );
  }

  get state(): Jobs["state"] {
    return this.#state;
  }

  add(job: JobOptions): Promise<void> {
    return this.#caller.call("addJob", [jobToCrate(job)]);
  }

  pause(job: string): Promise<void> {
    return this.#caller.call("askJob", ["pause", job]);
  }

  resume(job: string): Promise<void> {
    return this.#caller.call("askJob", ["resume", job]);
  }

  stop(job?: string): Promise<void> {
    return this.#caller.call("askJob", ["stop", job]);
  }

  status(): Promise<JobStatus[]> {
    return this.#caller.call("jobStatus", []);
  }

  exportAdapter(job: string, which: "current" | "best" = "current", options: { format?: AdapterFormat } = {}): Promise<AdapterFile[]> {
    return this.#caller.call("exportJob", [job, which, options.format ?? "peft"]);
  }

  [Symbol.asyncIterator](): AsyncIterator<JobsEvent> {
    return this.#events[Symbol.asyncIterator]();
  }
}
