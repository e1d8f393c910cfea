/** A run that measures nothing: a curve by formula, at a pace by choice. */

import type * as T from "../../package/src/types";
import { WebloraError } from "../../package/src/errors";
import { Stream } from "../../package/src/stream";
import type { Saves } from "./saves";
import { checkpointBytes, wait } from "./world";

export class FakeTraining implements T.Training {
  readonly job: string;
  readonly done: Promise<T.DoneEvent>;
  state: T.Training["state"] = "running";
  #events = new Stream<T.TrainEvent>();
  #step = 0;
  #links = 0;
  #parked = false;
  readonly #total: number;

  constructor(
    readonly settings: T.Settings,
    readonly rows: T.Rows | T.Rows[],
    readonly options: T.TrainOptions,
    readonly base: T.BaseInfo | null,
    readonly flags: Set<string>,
    readonly saves: Saves,
  ) {
    this.job = options.job ?? "main";
    this.#total = Number(settings["steps"] ?? 120);
    this.done = this.#run();
    this.done.then(
      () => this.#events.finish(),
      (error: unknown) => {
        this.state = "failed";
        this.#events.finish(error);
      },
    );
  }

  async pause(): Promise<void> {
    this.state = "paused";
    // When the step in progress is over.
    while (!this.#parked) await wait(5);
    this.#save();
  }

  async resume(): Promise<void> {
    this.state = "running";
  }

  async stop(): Promise<void> {
    this.state = "stopped";
    this.#save();
  }

  /** Steps done. */
  get steps(): number {
    return this.#step;
  }

  checkpoint(): Uint8Array {
    return checkpointBytes(this.#step, this.settings, this.base?.contentHash ?? "");
  }

  [Symbol.asyncIterator](): AsyncIterator<T.TrainEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  #emit(event: T.TrainEvent): void {
    this.#events.push(event);
  }

  #save(state: T.Autosave["state"] = "open"): void {
    const { autosave: key, heldOut } = this.options;
    if (!key) return;
    const { settings, rows } = this;
    const contentHash = this.base?.contentHash ?? "";
    this.saves.put({ key, base: this.base?.name ?? "", step: this.#step, total: this.#total, savedAt: Date.now(), state, bytes: 1_200_000, settings, rows, ...(heldOut ? { heldOut } : {}), contentHash });
    this.#emit({ event: "checkpoint", job: this.job, step: this.#step, path: key });
  }

  async #run(): Promise<T.DoneEvent> {
    const { settings, options, job } = this;
    const begun = Date.now();
    if (options.resume) {
      const header = new TextDecoder().decode(options.resume.subarray(8));
      this.#step = JSON.parse(JSON.parse(JSON.parse(header).__metadata__.weblora).state).step as number;
    }
    await wait(30);
    const start = { event: "start", job, config: { ...settings, alpha: 16 }, trainableParameters: 54_321, plannedBytes: 1.2e7, adapter: "Pretend GPU", rows: 100, rowsPerStep: 4, tokensPerStep: 96, stepsPerEpoch: 25, epochs: this.#total / 25 } as const;
    this.#emit({ ...start, steps: this.#total, resumedAt: this.#step });
    if (options.heldOut && this.#step === 0) this.#emit({ event: "eval", job, step: 0, loss: 2.6, tokens: 640, best: true });
    let loss = 0;
    while (this.#step < this.#total && this.state !== "stopped") {
      while (this.state === "paused") {
        this.#parked = true;
        await wait(10);
      }
      this.#parked = false;
      await wait(this.flags.has("slow") ? 120 : 12);
      if (this.flags.has("lost") && this.#step === 20) {
        this.flags.delete("lost");
        this.#save();
        this.#step = 15;
        this.#emit({ event: "warning", job, message: "the GPU device was lost; going on after step 15 on a new one" });
        this.#emit({ ...start, steps: this.#total, resumedAt: this.#step });
      }
      if (this.flags.has("nan") && this.#step === 10) this.#save();
      if (this.flags.has("nan") && this.#step === 20 && Number(this.settings["lr"] ?? 1) > 1e-3) throw new WebloraError("not_finite", `loss became NaN at step 21 of job ${job}; lower --lr, raise --warmup or set --clip 1`);
      this.#step += 1;
      loss = this.#advance();
    }
    if (this.state !== "stopped") this.state = "done";
    this.#save(this.state === "done" ? "done" : "stopped");
    return { event: "done", job, step: this.#step, loss, seconds: (Date.now() - begun) / 1000, out: "" };
  }

  /** The links of a chain, of 40 steps each. */
  chain(): T.Link[] {
    const rank = Number(this.settings["rank"]);
    const link: T.Link = { rank, alpha: 2 * rank, rslora: false, steps: 40, sites: 35, parameters: 4096 * rank };
    return this.settings["method"] === "cola" ? Array.from({ length: this.#links + 1 }, () => link) : [];
  }

  /** Ends the link of a chain. */
  tie(reason: string): T.Knot {
    this.#links += 1;
    const knot: T.Knot = { event: "knot", job: this.job, step: this.#step, link: this.#links, rank: Number(this.settings["rank"]), reason, logitJump: 3.1e-6 };
    this.#emit(knot);
    return knot;
  }

  /** Routers that begin even; with the flag "collapse" all tokens end at two experts of the last layer. */
  #routers(step: number, loss: number): { ce?: number; balanceLoss?: number; router?: T.RouterReport } {
    const { job, settings } = this;
    if (!String(settings["method"]).startsWith("mixlora")) return {};
    const experts = Number(settings["experts"]);
    const layers = Array.from({ length: this.base?.layers ?? 5 }, (_, layer) => layer);
    const far = this.flags.has("collapse") ? Math.min(1, step / 30) : 0;
    const load = layers.map((layer) => {
      const own = layer === layers.length - 1 ? far : 0;
      const uneven = Array.from({ length: experts }, (_, e) => 1 + 0.3 * Math.sin(e + layer));
      const all = uneven.reduce((sum, share) => sum + share, 0);
      return uneven.map((share, e) => (1 - own) * ((2 * share) / all) + own * (e < 2 ? 1 : 0));
    });
    if (this.flags.has("collapse") && step === 50) {
      this.#emit({ event: "warning", job, message: `the router of block ${layers.length - 1} (and 0 others) sends nearly all rows to the same experts; raise \`aux-coef\`, or lower \`lr\`` });
    }
    const balance = 2 + 2 * far;
    return { ce: loss - 0.01 * balance, balanceLoss: balance, router: { gradNorm: 0.02, entropy: layers.map(() => Math.log(experts) * (1 - 0.5 * far)), load, layers } };
  }

  #advance(): number {
    const { job, settings } = this;
    const step = this.#step;
    const noise = Math.sin(step * 12.9898) * 0.5 + Math.sin(step * 4.1) * 0.5;
    const pace = 1 + Number(settings["rank"]) / 16;
    const loss = 2.4 * Math.exp((-4 * pace * step) / this.#total) + 0.03 + 0.08 * Math.abs(noise) * Math.exp((-2 * step) / this.#total);
    const lr = Number(settings["lr"]) * Math.min(step / 5, 1 - step / (this.#total + 1));
    this.#emit({ event: "step", job, step, loss, ...this.#routers(step, loss), lr, gradNorm: 0.4 + Math.abs(noise), tokens: 496, tokensPerS: 4100 + 300 * noise });
    const every = Number(settings["evalEvery"]);
    if (this.options.heldOut && every > 0 && step % every === 0) this.#emit({ event: "eval", job, step, loss: loss * 1.1 + 0.02, tokens: 640, best: true, ...(this.flags.has("choices") ? { accuracy: step / this.#total } : {}) });
    if (settings["method"] === "cola" && step % 40 === 0) this.tie(`step ${step} was its last`);
    if (step % 10 === 0) this.#save();
    return loss;
  }
}
