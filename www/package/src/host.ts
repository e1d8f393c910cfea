// What the Worker does for a page: one device, one base, one run. Calls that use the device wait for their turn; a run's steps are such calls,
// so a question to the model is answered between two of them.

import { Engine } from "../wasm/weblora.js";
import { openBase } from "./base.js";
import { WebloraError } from "./errors.js";
import { adapterAs, mergedModel, sweepExports } from "./exporting.js";
import { Device } from "./gpu.js";
import type { Calls, Item, Method } from "./protocol.js";
import { JobsRun } from "./jobs.js";
import { Queue } from "./queue.js";
import { Run } from "./run.js";
import { listModels, removeModel } from "./storage/models.js";
import { discardRun, listRuns, restoreRun } from "./storage/runs.js";
import type { AdapterFile, Progress } from "./types.js";

/** What accompanies a call. */
export interface Call {
  signal: AbortSignal;
  progress: (progress: Progress) => void;
  item: (item: Item) => void;
}

type Handlers = { [M in Method]: (call: Call, ...args: Parameters<Calls[M]>) => ReturnType<Calls[M]> | Promise<ReturnType<Calls[M]>> };

export class Host {
  #device: Device | undefined;
  #run: Run | undefined;
  #jobs: JobsRun | undefined;
  #finished: Promise<unknown> = Promise.resolve();
  readonly #queue = new Queue();

  call(method: string, args: unknown[], call: Call): Promise<unknown> {
    const handler = Object.hasOwn(this.#handlers, method) ? (this.#handlers[method as Method] as (call: Call, ...args: unknown[]) => unknown) : undefined;
    if (!handler) return Promise.reject(new WebloraError("config", `there is no call ${method}; the page and its Worker are of different versions, reload the page`));
    return Promise.resolve().then(() => handler(call, ...args));
  }

  get #open(): Device {
    if (!this.#device) throw new WebloraError("stopped", "no device is open; create a Trainer first");
    return this.#device;
  }

  get #openJobs(): JobsRun {
    if (!this.#jobs) throw new WebloraError("config", "no jobs have been started; call jobs first");
    return this.#jobs;
  }

  get #training(): boolean {
    return this.#run?.state === "running" || this.#run?.state === "paused" || this.#jobs?.state === "running";
  }

  /** Runs `work` on the engine in turn. A lost device is replaced, and the call made again unless it has told something already. */
  #use<T>(call: Call, work: (engine: Engine) => T | Promise<T>, repeatable: () => boolean = () => true): Promise<T> {
    return this.#queue.run(async () => {
      const device = this.#open;
      for (let again = false; ; again = true) {
        if (call.signal.aborted) throw new WebloraError("aborted", "aborted by request");
        const { engine } = device;
        const abort = () => engine.abort();
        call.signal.addEventListener("abort", abort, { once: true });
        try {
          return await work(engine);
        } catch (error) {
          if (WebloraError.from(error).code !== "device_lost" || again) throw error;
          await device.replace();
          if (this.#jobs?.state === "running") await this.#jobs.restart();
          else if (this.#run && this.#run.state !== "failed") await this.#run.restart();
          if (!repeatable()) throw error;
        } finally {
          call.signal.removeEventListener("abort", abort);
        }
      }
    });
  }

  /** The files of an adapter that is not the one in training as it is now. */
  #given(which: "current" | "best" | AdapterFile[]): AdapterFile[] | undefined {
    if (Array.isArray(which)) return which;
    return which === "best" ? this.#run?.best?.map(({ name, bytes }) => ({ name, bytes: bytes.slice() })) : undefined;
  }

  #handlers: Handlers = {
    create: async (_, { wasmUrl, ...options }) => {
      this.#device = await Device.open(wasmUrl, options);
      void sweepExports();
      return this.#device.info;
    },
    loadBase: async (call, source, { quantize, tokenizer }) => {
      if (this.#training) throw new WebloraError("busy", "a run is training; stop it before another base is loaded");
      const open = await openBase(source, call.signal, call.progress);
      try {
        call.progress({ phase: "header", done: 0, total: 1 });
        const json = tokenizer instanceof Blob ? await tokenizer.text() : tokenizer;
        const info = await this.#use(call, () => this.#open.load(open, quantize, json));
        call.progress({ phase: "header", done: 1, total: 1 });
        [this.#run, this.#jobs] = [undefined, undefined];
        return info;
      } catch (error) {
        open.release();
        throw error;
      }
    },
    methods: () => Engine.methods(),
    demoSettings: () => Engine.demoSettings(),
    settings: (_, method) => Engine.settings(method),
    preview: (call, rows, settings, limit) => this.#use(call, (engine) => engine.preview(rows, settings, limit)),
    plan: (call, settings, rows) => this.#use(call, (engine) => engine.plan(settings, rows)),
    train: (call, settings, rows, options) => {
      if (this.#training) throw new WebloraError("busy", "another run is training; stop it first");
      const progress = (phase: Progress["phase"], done: number, total: number) => call.progress({ phase, done, total });
      this.#jobs = undefined;
      this.#run = new Run(this.#open, this.#queue, settings, rows, options, call.item, progress);
      const done = this.#run.run();
      this.#finished = done.catch(() => undefined);
      return done;
    },
    jobs: (call, jobs, options) => {
      if (this.#training) throw new WebloraError("busy", "another run is training; stop it first");
      if (jobs.length === 0) throw new WebloraError("config", "there is no job; give at least one");
      const progress = (phase: Progress["phase"], done: number, total: number) => call.progress({ phase, done, total });
      this.#run = undefined;
      this.#jobs = new JobsRun(this.#open, this.#queue, jobs, options, call.item, progress);
      const done = this.#jobs.run();
      this.#finished = done.catch(() => undefined);
      return done;
    },
    addJob: (_, job) => this.#openJobs.add(job),
    askJob: (_, what, name) => this.#openJobs.ask(what, name),
    jobStatus: () => this.#openJobs.status(),
    exportJob: (call, name, which, format) => {
      const jobs = this.#openJobs;
      return this.#use(call, async (engine) => {
        return adapterAs(engine, await jobs.export(engine, name, which), format);
      });
    },
    jobTables: () => Engine.jobTables(),
    sweep: (_, sweep) => Engine.sweep(sweep),
    pause: () => this.#run?.pause(),
    resume: () => this.#run?.resume(),
    stop: () => this.#run?.stop(),
    mergeLink: (call) => {
      const run = this.#run;
      if (!run) throw new WebloraError("config", "no run is open; start one with the method cola");
      return this.#use(call, (engine) => run.mergeLink(engine));
    },
    save: () => (this.#jobs ?? this.#run)?.saveSoon(),
    generate: (call, prompt, options) => {
      let told = false;
      const piece = (text: string) => {
        told = true;
        call.item({ piece: text });
      };
      const progress = (phase: Progress["phase"], done: number, total: number) => call.progress({ phase, done, total });
      const files = Array.isArray(options.adapter) ? options.adapter : undefined;
      return this.#use(
        call,
        (engine) => {
          const warning = files && engine.checkAdapter(files, options.strictBase).warning;
          if (warning && !told) call.item({ warning });
          return engine.generate(prompt, options, piece, progress);
        },
        () => !told,
      );
    },
    evaluate: (call, rows, adapter, strictBase) => this.#use(call, (engine) => engine.evaluate(rows, adapter, strictBase)),
    retrieve: (call, cell, adapter) => this.#use(call, (engine) => engine.retrieve(cell, adapter)),
    retrievalPicture: (_, title, lengths, depths, shares) => Engine.retrievalPicture(title, new Uint32Array(lengths), new Float64Array(depths), new Float64Array(shares)),
    exportAdapter: (call, which, format) => {
      const given = this.#given(which);
      if (given && format === "peft") return given;
      return this.#use(call, async (engine) => adapterAs(engine, given ?? (await engine.exportAdapter()), format));
    },
    exportModel: (call, which, format) => {
      const given = this.#given(which);
      return this.#use(call, async (engine) => mergedModel(engine, given ?? (await engine.exportAdapter()), format, call.progress));
    },
    checkAdapter: (call, adapter, strictBase) => this.#use(call, (engine) => engine.checkAdapter(adapter, strictBase)),
    analyze: (call, adapter) => (adapter === "current" ? this.#use(call, (engine) => engine.analyzeCurrent()) : Engine.analyze(adapter)),
    moduleScales: (call) => this.#use(call, async (engine) => [...(await engine.moduleScales())]),
    links: (_, adapter) => Engine.links(adapter),
    splitLinks: (_, adapter) => Engine.split(adapter),
    mergeAdapters: (_, adapters, options) => Engine.merge(adapters, options),
    checkpoint: (call) => this.#use(call, (engine) => engine.checkpoint()),
    autosaves: () => listRuns(),
    restore: (_, key) => restoreRun(key),
    discard: (_, key) => discardRun(key),
    cacheList: () => listModels(),
    cacheRemove: (_, key) => removeModel(key),
    cacheEstimate: async () => {
      const { usage = 0, quota = 0 } = await navigator.storage.estimate();
      return { usage, quota };
    },
    memory: (call) => this.#use(call, (engine) => engine.memory()),
    simulateDeviceLoss: (call) => this.#use(call, (engine) => engine.destroyDevice()),
    close: async () => {
      this.#run?.stop();
      this.#jobs?.halt();
      // After the step in progress and the save that stopping brings.
      await this.#finished;
      await this.#queue.run(async () => this.#device?.close());
      this.#device = undefined;
    },
  };
}
