// A run in the Worker: steps, saves, pauses, and goes on where it was when the device was lost. What happens after which step is decided
// by the library; here is only what a tab adds to it.

import { WebloraError } from "./errors.js";
import type { Device } from "./gpu.js";
import type { Item } from "./protocol.js";
import type { Queue } from "./queue.js";
import { RunStore, type Standing } from "./storage/runs.js";
import type { Autosave, DoneEvent, Knot, Settings, TrainEvent } from "./crate_types.js";
import type { AdapterFile, Progress, Rows, Training, TrainOptions } from "./types.js";

/** A run is saved at least this often, in milliseconds: what a lost device or a closed tab can cost. */
const SAVE_AT_LEAST = 30_000;
/** Losses of the device without a step in between, after which it is no use. */
const PATIENCE = 3;

type Options = Omit<TrainOptions, "onProgress" | "signal">;

export class Run {
  state: Training["state"] = "running";
  readonly #device: Device;
  readonly #queue: Queue;
  readonly #settings: Settings;
  readonly #rows: Rows | Rows[];
  readonly #options: Options;
  readonly #tell: (item: Item) => void;
  readonly #progress: (phase: Progress["phase"], done: number, total: number) => void;
  #store: RunStore | undefined;
  #wish: "run" | "pause" | "stop" = "run";
  #saveSoon = false;
  /** The training loss has risen far: what was saved before that is worth more than what the run is now. */
  #diverges = false;
  /** No step has shown yet that what was saved last is sound: the update before it may have destroyed the adapter. */
  #unproven: boolean;
  /** The step of the last save, while the run is as it was then. */
  #savedStep: number | undefined;
  #wake: (() => void) | undefined;
  #paused: (() => void)[] = [];
  #checkpoint: Uint8Array<ArrayBuffer> | undefined;
  /** The one before it, as long as that one is unproven. */
  #earlier: Uint8Array<ArrayBuffer> | undefined;
  /** Of the steps that this page has made, some are saved. */
  #kept: boolean;
  #savedAt = 0;
  #name = "main";
  #step = 0;
  #total = 0;
  #loss: number | undefined;
  #bestEval: number | undefined;
  best: AdapterFile[] | undefined;

  constructor(
    device: Device, queue: Queue, settings: Settings, rows: Rows | Rows[], options: Options, tell: (item: Item) => void,
    progress: (phase: Progress["phase"], done: number, total: number) => void,
  ) {
    [this.#device, this.#queue, this.#rows, this.#options] = [device, queue, rows, options];
    this.#settings = options.job === undefined ? settings : { ...settings, name: options.job };
    this.#tell = tell;
    this.#progress = progress;
    this.#checkpoint = options.resume as Uint8Array<ArrayBuffer> | undefined;
    this.#kept = this.#unproven = options.resume !== undefined;
  }

  async run(): Promise<DoneEvent> {
    const begun = performance.now();
    try {
      const started = await this.#queue.run(() => this.#start(this.#options.tune ?? this.#device.worthTuning));
      if (this.#options.autosave !== undefined) await this.#openStore(this.#options.autosave, started);
      // What is sound until an update has proven to be: the first one may destroy the adapter.
      if (this.#store && !this.#checkpoint) await this.#queue.run(() => this.#keep());
      await this.#train();
      const done = await this.#queue.run(async () => this.#device.engine.done((performance.now() - begun) / 1000));
      const state = this.#wish === "stop" && this.#step < this.#total ? "stopped" : "done";
      await this.#queue.run(() => this.#end(state));
      this.#event(done);
      this.#become(state);
      return done;
    } catch (error) {
      this.#become("failed");
      throw error;
    } finally {
      this.#wish = "stop";
      this.#releasePauses();
      this.#store?.close();
    }
  }

  pause(): Promise<void> {
    if (this.state !== "running") return Promise.resolve();
    this.#wish = "pause";
    return new Promise((paused) => this.#paused.push(paused));
  }

  resume(): void {
    this.#wish = "run";
    this.#wake?.();
  }

  stop(): void {
    this.#wish = "stop";
    this.#wake?.();
  }

  /** Ends a chain's link between two steps, and saves. */
  async mergeLink(engine: Device["engine"]): Promise<Knot> {
    const knot = await engine.mergeLink();
    this.#event(knot);
    this.#savedStep = undefined;
    if (!this.#diverges) await this.#save();
    return knot;
  }

  /** Saves after the step in progress. */
  saveSoon(): void {
    this.#saveSoon = true;
  }

  /** On a new device: the run as it was last saved. */
  async restart(): Promise<void> {
    const events = await this.#begin(false);
    this.#event({ event: "warning", job: this.#name, message: `the GPU device was lost; going on after step ${this.#step} on a new one` });
    events.forEach((event) => this.#event(event));
  }

  #event(event: TrainEvent): void {
    if (event.event === "step") this.#loss = event.loss;
    if (event.event === "eval" && event.best) this.#bestEval = event.loss;
    this.#tell({ event });
  }

  #become(state: Training["state"]): void {
    this.state = state;
    this.#tell({ state });
  }

  #releasePauses(): void {
    for (const paused of this.#paused.splice(0)) paused();
  }

  async #start(tune: boolean): Promise<TrainEvent[]> {
    const events = await this.#begin(tune);
    if (tune) await this.#device.remember();
    events.forEach((event) => this.#event(event));
    return events;
  }

  async #begin(tune: boolean): Promise<TrainEvent[]> {
    const { heldOut, initAdapter } = this.#options;
    const events = await this.#device.engine.start(
      { settings: this.#settings, rows: this.#rows, heldOut, initAdapter, resume: this.#checkpoint, tune },
      this.#progress,
    );
    const start = events.find((event) => event.event === "start");
    if (start) [this.#step, this.#total, this.#name] = [start.resumed_at, start.steps, start.job];
    return events;
  }

  /** Storage that fails takes nothing from the run but being saved. */
  async #openStore(key: string, started: TrainEvent[]): Promise<void> {
    const { base } = this.#device;
    const start = started.find((event) => event.event === "start");
    if (!base || !start) return;
    const { open, info } = base;
    try {
      this.#store = await RunStore.open({
        key, settings: start.config, rows: this.#rows, baseName: info.name, contentHash: info.contentHash,
        ...(this.#options.heldOut ? { heldOut: this.#options.heldOut } : {}),
        ...(open.again ? { base: open.again } : {}), ...(open.url === undefined ? {} : { url: open.url }),
      }, this.#options.resume === undefined);
      this.best = (await this.#store.best())?.files;
      if (this.#options.resume !== undefined) this.#savedStep = await this.#store.step();
    } catch (error) {
      const known = WebloraError.from(error);
      // Two tabs on one run is a mistake to be told, not a storage that fails.
      if (known.code === "busy") throw known;
      this.#event({ event: "warning", job: this.#name, message: `this run is not saved: ${known.message}` });
    }
  }

  async #train(): Promise<void> {
    let losses = 0;
    this.#savedAt = performance.now();
    let over = false;
    while (!over) {
      const { engine } = this.#device;
      try {
        if (this.#wish === "pause") await this.#wait();
        if (this.#wish === "stop") break;
        over = await this.#queue.run(() => this.#advance());
        losses = 0;
      } catch (error) {
        const known = WebloraError.from(error);
        if (known.code === "not_finite") await this.#fallBack("the run ended");
        if (known.code !== "device_lost" || ++losses > PATIENCE) throw known;
        await this.#queue.run(() => this.#recover(engine));
      }
    }
    if (this.#wish === "stop" && !this.#diverges) await this.#queue.run(() => this.#save());
  }

  async #recover(lost: Device["engine"]): Promise<void> {
    // Another call may have met the loss before and made a new one.
    if (this.#device.engine !== lost) return;
    await this.#device.replace();
    await this.restart();
  }

  async #advance(): Promise<boolean> {
    const { engine } = this.#device;
    const result = await engine.step();
    [this.#step, this.#total] = [result.step, result.total];
    result.events.forEach((event) => this.#event(event));
    if (result.best) await this.#keepBest(await engine.exportAdapter());
    if (result.diverges && !this.#diverges) await this.#fallBack("the loss rose");
    this.#diverges = result.diverges;
    if (result.sound) [this.#unproven, this.#earlier] = [false, undefined];
    // The first step is saved, too: from then on there is something to lose.
    const due = result.save || this.#saveSoon || (this.#store && !this.#kept) || performance.now() - this.#savedAt > SAVE_AT_LEAST;
    if (due && !this.#diverges) await this.#save();
    return result.over;
  }

  /** Of what was saved, the last that is sound counts again; says which that is. */
  async #fallBack(when: string): Promise<void> {
    if (!this.#store) return;
    try {
      if (this.#unproven) await this.#store.takeBack();
      [this.#checkpoint, this.#unproven, this.#earlier] = [this.#earlier ?? this.#checkpoint, false, undefined];
      const saved = await this.#store.step();
      const message = `what is saved of this run is from step ${saved}, before ${when}: go on from there with a smaller lr`;
      if (saved !== undefined) this.#event({ event: "warning", job: this.#name, message });
    } catch (error) {
      const { message } = WebloraError.from(error);
      this.#event({ event: "warning", job: this.#name, message: `an earlier save could not be taken up: ${message}` });
    }
  }

  async #save(): Promise<void> {
    this.#saveSoon = false;
    this.#kept = true;
    const path = await this.#keep();
    this.#event({ event: "checkpoint", job: this.#name, step: this.#step, path });
  }

  /** Saves without a word, and returns where. */
  async #keep(): Promise<string> {
    if (this.#savedStep === this.#step) return this.#store?.key ?? "memory";
    const wasUnproven = this.#unproven;
    if (!wasUnproven) this.#earlier = this.#checkpoint;
    this.#checkpoint = (await this.#device.engine.checkpoint()) as Uint8Array<ArrayBuffer>;
    this.#savedAt = performance.now();
    [this.#unproven, this.#savedStep] = [true, this.#step];
    let path = "memory";
    if (this.#store) {
      try {
        // It takes the place of one that is unproven, too: what was saved before that stays.
        if (wasUnproven) await this.#store.takeBack();
        await this.#store.save(this.#standing("open"), this.#checkpoint);
        path = this.#store.key;
      } catch (error) {
        const { message } = WebloraError.from(error);
        this.#event({ event: "warning", job: this.#name, message: `step ${this.#step} is not saved: ${message}` });
        this.#savedStep = undefined;
      }
    }
    return path;
  }

  #standing(state: Autosave["state"]): Omit<Standing, "savedAt"> {
    const [loss, bestEval] = [this.#loss, this.#bestEval];
    return { step: this.#step, total: this.#total, state, ...(loss === undefined ? {} : { loss }), ...(bestEval === undefined ? {} : { bestEval }) };
  }

  /** The run is over: its adapter is kept beside its checkpoint, or where the loss has risen beside that of before, from which it can go on. */
  async #end(state: "done" | "stopped"): Promise<void> {
    if (!this.#store || this.#step === 0) return;
    try {
      const { engine } = this.#device;
      await this.#store.saveEnd(this.#step, await engine.exportAdapter());
      if (!this.#diverges) await this.#store.save(this.#standing(state), (await engine.checkpoint()) as Uint8Array<ArrayBuffer>);
    } catch (error) {
      const { message } = WebloraError.from(error);
      this.#event({ event: "warning", job: this.#name, message: `the finished adapter is not saved: ${message}` });
    }
  }

  async #keepBest(files: AdapterFile[]): Promise<void> {
    this.best = files;
    try {
      await this.#store?.saveBest(this.#step, files);
    } catch (error) {
      const { message } = WebloraError.from(error);
      this.#event({ event: "warning", job: this.#name, message: `the best adapter so far, of step ${this.#step}, is not saved: ${message}` });
    }
  }

  async #wait(): Promise<void> {
    if (!this.#diverges) await this.#queue.run(() => this.#save());
    this.#become("paused");
    this.#releasePauses();
    while (this.#wish === "pause") await new Promise<void>((wake) => (this.#wake = wake));
    if (this.#wish === "run") this.#become("running");
  }
}
