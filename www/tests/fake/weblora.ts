/**
 * A stand-in for the package with the same interface, for states of the page that a real GPU reaches seldom or slowly: a lost device, a full
 * disk, a browser without WebGPU, a run of a thousand steps. `?fake=lost,slow` in the address chooses. The shipped page has nothing of it.
 */

import { WebloraError } from "../../package/src/errors";
import type { Trainer as Real } from "../../package/src/trainer";
import type * as T from "../../package/src/types";
import { Saves } from "./saves";
import { METHODS, SETTINGS, defaults } from "./settings";
import { FakeJobs, sweep } from "./jobs";
import { FakeTraining } from "./training";
import { chainFile, linksIn, peftFiles, tokenise, wait } from "./world";

export { WebloraError };
export type * from "../../package/src/types";

const flags = new Set((new URLSearchParams(location.search).get("fake") ?? "").split(","));

const saves = new Saves();

/** An answer in a conversation: what it has heard so far. */
function heard(messages: T.ChatMessage[]): string {
  const told = messages.find(({ role }) => role === "system")?.content ?? "nothing";
  const before = messages.filter(({ role }) => role === "assistant").at(-1)?.content ?? "nothing";
  return ` Told ${told}. Said ${messages.filter(({ role }) => role === "user").length} things, the last ${messages.at(-1)?.content ?? ""}. Answered ${before.slice(0, 12)} before.`;
}

/** Every public member of the real one, with its types: a page that compiles against one compiles against the other. */
export class Trainer implements Pick<Real, keyof Real> {
  readonly adapter: T.AdapterInfo = { name: "Pretend GPU", vendor: "tests", backend: "webgpu", features: ["shader-f16"] };
  #base: T.BaseInfo | null = null;
  #run: FakeTraining | null = null;
  #cached: T.CacheEntry[] = flags.has("cached")
    ? [{ key: "c1", name: "smollm2-135m-instruct-q8_0.gguf", bytes: 144_811_360, usedAt: Date.now() - 3 * 86_400_000 }]
    : [];

  static async create(): Promise<Trainer> {
    if (flags.has("nowebgpu")) throw new WebloraError("no_webgpu", "this browser has no WebGPU");
    return new Trainer();
  }

  static async support(): Promise<T.Support> {
    const reason = "this browser has no WebGPU; use Chrome 113 or a later version";
    return flags.has("nowebgpu") ? { webgpu: false, reason, features: [], limits: {} } : { webgpu: true, adapter: "Pretend GPU", features: ["shader-f16"], limits: {} };
  }

  readonly cache = {
    list: async () => this.#cached,
    remove: async (key: string) => void (this.#cached = this.#cached.filter((entry) => entry.key !== key)),
    estimate: async () => ({ usage: 2e8, quota: 5e10 }),
  };

  async loadBase(source: T.BaseSource, options: T.LoadOptions = {}): Promise<T.BaseInfo> {
    const total = "embedded" in source ? 730_000 : 144_811_360;
    if ("file" in source && source.file.size < 1000) {
      throw new WebloraError("format", "broken.gguf: the header ends after 12 bytes; the download may be incomplete, fetch the file again");
    }
    for (let part = 0; part <= 10; part += 1) {
      if (options.signal?.aborted) throw new WebloraError("aborted", "aborted by request");
      if (part === 5 && "url" in source && flags.has("network")) throw new WebloraError("network", "the server answered 404 for model.gguf; check the address");
      if (part === 5 && "url" in source && flags.has("quota")) throw new WebloraError("quota", "the browser's storage is full; remove a kept model or load without keeping");
      options.onProgress?.({ phase: "download", done: (total * part) / 10, total });
      await wait(flags.has("slow") ? 200 : 5);
    }
    const embedded = "embedded" in source;
    this.#base = {
      name: embedded ? "weblora demo" : "SmolLM2 135M Instruct",
      architecture: "llama",
      format: embedded ? "q4_1" : "q8_0",
      parameters: embedded ? 1_080_704 : 134_515_008,
      bytes: total,
      layers: embedded ? 5 : 30,
      hidden: embedded ? 128 : 576,
      vocab: embedded ? 768 : 49_152,
      context: embedded ? 128 : 8192,
      contentHash: embedded ? "0".repeat(32) : "1".repeat(32),
      chatTemplate: true,
      warnings: [],
    };
    if ("url" in source) this.#cached = [{ key: "c2", name: source.url.split("/").at(-1) ?? "", bytes: total, usedAt: Date.now() }];
    return this.#base;
  }

  async settings(method: string): Promise<T.Setting[]> {
    return SETTINGS.filter((row) => !row.method || row.method === method);
  }

  async methods(): Promise<T.MethodInfo[]> {
    return METHODS;
  }

  async demoSettings(): Promise<T.Settings> {
    return { name: "demo", method: "lora", rank: 8, alpha: 16, lr: 2e-3, warmup: 5, steps: 60, batch: 16, seq: 64, evalEvery: 20, recompute: false };
  }

  async preview(rows: T.Rows, settings: T.Settings = {}, limit = 20): Promise<{ rows: T.RowPreview[]; total: number; warnings: string[] }> {
    const { examples, warnings } = tokenise(rows, Number(settings["seq"] ?? 512));
    return { rows: examples.slice(0, limit), total: examples.length, warnings };
  }

  async plan(settings: T.Settings, rows?: T.Rows | T.Rows[]): Promise<T.Plan> {
    const all = defaults(settings);
    const [rank, batch, seq] = [Number(all["rank"]), Number(all["batch"]), Number(all["seq"])];
    if (!(rank >= 1)) throw new WebloraError("config", `\`rank\`: is ${JSON.stringify(all["rank"])}; give a whole number from 1 to 4096`);
    if (!(Number(all["lr"]) > 0)) throw new WebloraError("config", `\`lr\`: is ${JSON.stringify(all["lr"])}; give a positive number, such as 5e-4`);
    const weights = this.#base?.bytes ?? 0;
    const trainable = rank * 7 * (this.#base?.layers ?? 0) * (this.#base?.hidden ?? 0) * 3;
    const byPurpose = { weights, adapter: 4 * trainable, gradients: 4 * trainable, optimizer: 8 * trainable, io: 40_000, activations: batch * seq * 9000, params: 30_000 };
    const totalBytes = Object.values(byPurpose).reduce((a, b) => a + b, 0);
    const steps = Number(all["steps"] ?? 0) || Math.ceil((rows ? [rows].flat().reduce((sum, set) => sum + tokenise(set, seq).examples.length, 0) : 100) / batch) * Number(all["epochs"] ?? 1);
    const fits = !flags.has("oom");
    return { totalBytes, byPurpose, trainable, dispatches: 412, rows: batch * seq, steps, fits, ...(fits ? {} : { reason: "the plan needs 9.1 GB and this GPU allows 4.3 GB; use a smaller batch or seq" }) };
  }

  train(settings: T.Settings, rows: T.Rows | T.Rows[], options: T.TrainOptions = {}): T.Training {
    this.#run = new FakeTraining(defaults(settings), rows, options, this.#base, flags, saves);
    return this.#run;
  }

  jobs(jobs: T.JobOptions[], options: T.JobsOptions = {}): T.Jobs {
    return new FakeJobs(jobs, options, this.#base, flags, saves);
  }

  sweep = async (wish: T.Sweep): Promise<T.Trial[]> => sweep(wish);
  jobTables = async (): Promise<T.JobTables> => ({ policies: [], rules: [], searches: [] });

  async *generate(prompt: string | T.ChatMessage[], options: T.GenerateOptions = {}): AsyncGenerator<string, void, undefined> {
    const tuned = options.adapter !== "none";
    const plain = tuned ? " Anna has a brown boat. Ben has a black lamp." : " Ben and Anna are happy. They talk to each other and play in the green garden until the sun goes down.";
    const text = typeof prompt === "string" ? plain : heard(prompt);
    for (const piece of text.match(/\s?\S+/g) ?? []) {
      await wait(flags.has("slow") ? 120 : 15);
      if (options.signal?.aborted) throw new WebloraError("aborted", "aborted by request");
      yield piece;
    }
    options.onEnd?.({ text, tokens: 12, stopped: options.maxTokens === 12 ? "length" : "end" });
  }

  async evaluate(_rows: T.Rows, options: { adapter?: T.AdapterChoice } = {}): Promise<T.Evaluation> {
    await wait(50);
    const base = options.adapter === "none";
    return { loss: base ? 2.1234 : 0.0123, tokens: 640, ...(flags.has("choices") ? { accuracy: base ? 0.25 : 0.875 } : {}) };
  }

  async retrieve({ task, lengths, depths = [0], trials = 4, signal, onCell }: T.RetrievalOptions): Promise<T.Retrieval> {
    const cells: T.RetrievalShare[] = [];
    for (const depth of depths) {
      for (const length of lengths) {
        await wait(flags.has("slow") ? 120 : 5);
        if (signal?.aborted) throw new WebloraError("aborted", "aborted by request");
        if (length > 512) throw new WebloraError("config", `\`maxTokens\`: ${length} prompt tokens and 8 new ones exceed the context of 512; generate fewer tokens or shorten the prompt`);
        cells.push({ length, depth, right: 3, trials });
        cells.slice(-1).forEach((cell) => onCell?.(cell));
      }
    }
    const picture = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 200" role="img"><title>${task}</title><style>.paper{fill:#fff}</style><rect width="100%" height="100%" class="paper"/></svg>`;
    return { cells, share: 3 / trials, picture };
  }

  async exportAdapter(_which: "current" | "best" | T.AdapterFile[] = "current", options: { format?: T.AdapterFormat } = {}): Promise<T.AdapterFile[]> {
    if (options.format === "gguf") return [{ name: "adapter.gguf", bytes: new TextEncoder().encode("GGUF") }];
    if (options.format === "mixlora-bin") return [peftFiles(true)[0], { name: "adapter_model.bin", bytes: new TextEncoder().encode("PK") }].flatMap((file) => file ?? []);
    const routed = String(this.#run?.settings["method"]).startsWith("mixlora");
    return [...peftFiles(routed), ...chainFile(this.#run?.chain() ?? [])];
  }

  async exportModel(_which: "current" | "best" | T.AdapterFile[] = "current", options: { onProgress?: (progress: T.Progress) => void } = {}): Promise<T.MergedModel> {
    for (let part = 1; part <= 10; part += 1) {
      await wait(flags.has("slow") ? 120 : 5);
      options.onProgress?.({ phase: "export", done: part * 1e6, total: 1e7 });
    }
    return { file: new File(["GGUF merged"], "model.gguf"), files: ["model.gguf"], bytes: 1e7, warnings: [], retention: 0.9987, relativeError: 0.01 };
  }

  async checkAdapter(): Promise<T.AdapterFacts> {
    if (!this.#base) throw new WebloraError("config", "`model`: no base is loaded; call loadBase first");
    const warning = flags.has("otherbase") ? "adapter the adapter was trained on the base a.gguf (q4_1, hash 00), this one is b.gguf (f16, hash 11)" : null;
    const targets = ["q_proj", "v_proj"];
    return { rank: 8, alpha: 16, rslora: false, sites: 10, parameters: 4096, targets, base: "a.gguf", baseHash: "0".repeat(32), steps: 60, zero: false, warning };
  }

  async analyze(adapter: T.AdapterFile[] | "current"): Promise<T.Analysis> {
    await wait(50);
    if (adapter !== "current" && adapter.length < 2) throw new WebloraError("adapter", "the adapter: it has no adapter_model.safetensors; pass the files of a folder that PEFT or weblora saved");
    const projections = ["q", "v"].map((projection) => ({ projection, sites: 5, rank: 8, rank_sum: 8, effective_rank: 3.25, normalized_entropy: 0.57, top1_energy: 0.41, frobenius: 0.12 }));
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 200" width="400" height="200" role="img"><title>Singular values</title><style>.paper{fill:#fff}</style>' +
      '<rect width="100%" height="100%" class="paper"/><line x1="40" y1="180" x2="390" y2="180" class="axis"/><text x="40" y="20" class="ink" font-size="13">Singular values</text></svg>';
    const module = { mean_scale: 0.012, rms_scale: 0.015, max_scale: 0.04, frobenius: 0.5, share: 0.5 };
    const modules = adapter === "current" && this.#run?.settings["method"] === "multilora" ? { modules: [module, module] } : {};
    const block = { frobenius: [0.5, 0.4, 0.3, 0.6], router: [0.11, 0.12, 0.1, 0.13] };
    const routed = String(this.#run?.settings["method"]).startsWith("mixlora") ? { experts: { experts: 4, blocks: [0, 1].map((layer) => ({ layer, ...block })) } } : {};
    return { report: { name: "the adapter", projections, ...modules, ...routed, sites: [] }, pictures: [{ name: "spectra.svg", svg }] };
  }

  async links(adapter: T.AdapterFile[]): Promise<T.Link[]> {
    return linksIn(adapter);
  }

  async splitLinks(adapter: T.AdapterFile[]): Promise<T.AdapterFile[][]> {
    return linksIn(adapter).map(() => peftFiles());
  }

  async mergeAdapters(adapters: T.AdapterFile[][], options: T.MergeOptions = {}): Promise<T.Merged> {
    await wait(20);
    if (options.weights) throw new WebloraError("adapter", "adapter 1: was trained on another base than adapter 0; merge adapters of one base");
    const left = adapters.flatMap(linksIn).filter((_, i) => !options.drop?.includes(i));
    const links = options.maxRank === undefined ? left : [];
    const rank = options.maxRank ?? left.reduce((sum, link) => sum + link.rank, 0);
    return { files: [...peftFiles(), ...chainFile(links)], links: links.length, rank, sites: 35, parameters: 4096 * rank, dropped: options.maxRank === undefined ? null : 0.0123, warning: null };
  }

  async moduleScales(): Promise<number[]> {
    const run = this.#run;
    return run?.settings["method"] === "multilora" ? [0.01, 0.012, 0.009].map((s) => s * Math.log(2 + run.steps)) : [];
  }

  async tieKnot(): Promise<T.Knot> {
    if (!this.#run) throw new WebloraError("config", "no run is open; start one with the method cola");
    return this.#run.tie("asked for");
  }

  mergeLink = async (): Promise<T.Knot> => this.tieKnot();
  [Symbol.asyncDispose] = async (): Promise<void> => this.free();

  async checkpoint(): Promise<Uint8Array> {
    return this.#run?.checkpoint() ?? new Uint8Array();
  }

  autosaves = async () => saves.list();
  restore = async (key: string) => saves.restore(key);
  discard = async (key: string) => saves.discard(key);
  memory = async (): Promise<T.MemoryUse> => ({ wasm: 2.4e7, gpu: 1.2e7 });
  simulateDeviceLoss = async () => void flags.add("lost");
  free = async () => this.#run?.stop();
}
