/** Several jobs that measure nothing: curves by formula, the better the nearer lr * rank is to 0.016; one that is told to becomes NaN. */

import type * as T from "../../package/src/types";
import { WebloraError } from "../../package/src/errors";
import { Stream } from "../../package/src/stream";
import type { Saves } from "./saves";
import { defaults } from "./settings";
import { peftFiles, wait } from "./world";

interface Entry {
  options: T.JobOptions;
  settings: T.Settings;
  status: T.JobStatus;
}

export class FakeJobs implements T.Jobs {
  state: T.Jobs["state"] = "running";
  readonly done: Promise<T.JobStatus[]>;
  readonly #events = new Stream<T.JobsEvent>();
  readonly #entries: Entry[] = [];

  constructor(
    jobs: T.JobOptions[],
    readonly options: T.JobsOptions,
    readonly base: T.BaseInfo | null,
    readonly flags: Set<string>,
    readonly saves: Saves,
  ) {
    for (const job of jobs) this.#enter(job);
    this.done = this.#run();
    this.done.then(() => this.#events.finish(), (error: unknown) => this.#events.finish(error));
  }

  async add(job: T.JobOptions): Promise<void> {
    if (this.#entries.some(({ options }) => options.name === job.name)) throw new WebloraError("config", `there is a job called ${job.name} already`);
    this.#start(this.#enter(job));
  }

  pause = async (name: string) => this.#change(name, "paused", "paused by request");
  resume = async (name: string) => this.#change(name, "running", "it goes on by request");

  async stop(name?: string): Promise<void> {
    for (const { options } of this.#entries) if (name === undefined || name === options.name) this.#change(options.name, "stopped", "stopped by request");
  }

  async status(): Promise<T.JobStatus[]> {
    const score = ({ status }: Entry) => status.bestEval ?? Infinity;
    const best = this.#entries.reduce((a, b) => (score(b) < score(a) ? b : a));
    return this.#entries.map((entry) => ({ ...entry.status, best: entry === best && Number.isFinite(score(best)) }));
  }

  async exportAdapter(): Promise<T.AdapterFile[]> {
    return peftFiles();
  }

  [Symbol.asyncIterator](): AsyncIterator<T.JobsEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  #change(name: string, state: T.JobStatus["state"], reason: string): void {
    const entry = this.#entries.find(({ options }) => options.name === name);
    if (!entry || isOver(entry)) return;
    Object.assign(entry.status, { state, reason });
    this.#events.push({ event: "schedule", job: name, action: state === "running" ? "resume" : state, reason });
    if (isOver(entry)) this.#save(entry);
  }

  #enter(options: T.JobOptions): Entry {
    const settings = defaults(options.settings);
    const saved = options.resume ? (JSON.parse(JSON.parse(JSON.parse(new TextDecoder().decode(options.resume.checkpoint.subarray(8))).__metadata__.weblora).state).step as number) : 0;
    const status: T.JobStatus = { job: options.name, state: "waiting", reason: "it has just been added", step: saved, steps: Number(settings["steps"] ?? 60), loss: null, bestEval: null, bestStep: null, secondsLeft: null, best: false, soundStep: 0 };
    const entry = { options, settings, status };
    this.#entries.push(entry);
    return entry;
  }

  #start({ options, settings, status }: Entry): void {
    status.state = "running";
    const counts = { rows: 100, rowsPerStep: 4, tokensPerStep: 96, stepsPerEpoch: 25, epochs: status.steps / 25 };
    this.#events.push({ event: "start", job: options.name, config: settings, trainableParameters: 5432 * Number(settings["rank"]), plannedBytes: 1e6, adapter: "Pretend GPU", steps: status.steps, resumedAt: status.step, ...counts });
  }

  async #run(): Promise<T.JobStatus[]> {
    await wait(30);
    this.#events.push({ event: "jobs", jobs: this.#entries.length, rows: 4096, plannedBytes: 4e7, places: 64, spareBytes: 0, adapter: "Pretend GPU" });
    this.#entries.forEach((entry) => this.#start(entry));
    const open = () => this.#entries.filter((entry) => !isOver(entry));
    while (open().length > 0) {
      await wait(this.flags.has("slow") ? 120 : 12);
      for (const entry of open()) if (entry.status.state === "running") this.#step(entry);
      this.#events.push({ event: "status", jobs: await this.status() });
    }
    this.state = "done";
    return this.status();
  }

  #step(entry: Entry): void {
    const { options, settings, status } = entry;
    const job = options.name;
    if (this.flags.has("nan") && job === this.#entries[0]?.options.name && status.step === 20) {
      Object.assign(status, { state: "failed", reason: "its loss became NaN at step 21: lower lr, raise warmup, or set clip" });
      return this.#events.push({ event: "job_failed", job, reason: status.reason });
    }
    status.step += 1;
    const off = Math.abs(Math.log((Number(settings["lr"]) * Number(settings["rank"])) / 0.016));
    const loss = (2.4 - 0.3 * off) * Math.exp((-4 * status.step) / status.steps / (1 + off)) + 0.05 * (1 + off);
    status.loss = loss;
    status.secondsLeft = 0.012 * (status.steps - status.step);
    this.#events.push({ event: "step", job, step: status.step, loss, lr: Number(settings["lr"]), gradNorm: 0.5, tokens: 496, tokensPerS: 4100 });
    const every = Number(settings["evalEvery"]);
    if (every > 0 && status.step % every === 0) {
      const held = loss * 1.1;
      const best = status.bestEval === null || held < status.bestEval;
      if (best) Object.assign(status, { bestEval: held, bestStep: status.step });
      this.#events.push({ event: "eval", job, step: status.step, loss: held, tokens: 640, best });
      if (JSON.stringify(this.options.scheduler).includes("median") && status.step >= status.steps / 2 && off > 1) {
        this.#change(job, "stopped", "median: the best held-out loss is above the median of the others");
      }
    }
    if (status.step >= status.steps && !isOver(entry)) this.#change(job, "done", "it has taken its last step");
    if (status.step % 10 === 0 && !isOver(entry)) this.#save(entry);
  }

  #save({ options, settings, status }: Entry): void {
    const { autosave } = this.options;
    if (!autosave) return;
    const { name, rows, heldOut, priority = 0, group } = options;
    const state = status.state === "done" || status.state === "stopped" || status.state === "failed" ? status.state : "open";
    const known = { ...(heldOut ? { heldOut } : {}), ...(status.bestEval === null ? {} : { bestEval: status.bestEval }) };
    const job = { name, priority, ...(group === undefined ? {} : { group }) };
    this.saves.put({ key: `${autosave}/${name}`, base: this.base?.name ?? "", step: status.step, total: status.steps, savedAt: Date.now(), settings, rows, state, bytes: 400_000, jobs: autosave, contentHash: this.base?.contentHash ?? "", job, ...known });
  }
}

const isOver = ({ status }: Entry): boolean => ["done", "stopped", "failed"].includes(status.state);

/** A grid over all keys. */
export function sweep({ name = "sweep", keys = {} }: T.Sweep): T.Trial[] {
  let all: T.Settings[] = [{}];
  for (const [key, values] of Object.entries(keys)) all = all.flatMap((each) => (values as unknown[]).map((value) => ({ ...each, [key]: value })));
  return all.map((assigned, i) => ({ name: `${name}-${i + 1}-${Object.entries(assigned).map(([key, value]) => `${key}${String(value)}`).join("-")}`, assigned }));
}
