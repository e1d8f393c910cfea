// The engine with what makes it anew after its device was lost: the base's bytes, and what was measured on this GPU.

import init, { Engine } from "../wasm/weblora.js";
import type { OpenBase } from "./base.js";
import { WebloraError } from "./errors.js";
import { folder, hex, readFile, sha256, writeFile } from "./storage/files.js";
import { support } from "./support.js";
import type { AdapterInfo, BaseInfo } from "./types.js";

/** From this size on, measuring kernels pays for itself. */
const TUNE_FROM = 20e6;

/** What a device is opened with. */
export interface DeviceOptions {
  maxBytes?: number;
  subgroups?: boolean;
}

export class Device {
  engine: Engine;
  readonly info: AdapterInfo;
  readonly #options: DeviceOptions;
  readonly #isCpu: boolean;
  #base: { open: OpenBase; quantize: string | undefined; tokenizer: string | undefined; info: BaseInfo } | undefined;

  private constructor(engine: Engine, info: AdapterInfo, isCpu: boolean, options: DeviceOptions) {
    this.engine = engine;
    this.info = info;
    this.#isCpu = isCpu;
    this.#options = options;
  }

  static async open(wasmUrl: string | undefined, options: DeviceOptions): Promise<Device> {
    try {
      await (wasmUrl === undefined ? init() : init({ module_or_path: wasmUrl }));
    } catch (error) {
      throw new WebloraError("network", "the wasm module could not be loaded; check `wasmUrl`, and that the page's policy allows 'wasm-unsafe-eval'", [String(error)]);
    }
    const found = await support();
    const engine = await Engine.open(options.maxBytes, options.subgroups);
    const facts = engine.facts();
    const name = found.adapter ?? facts.name;
    const vendor = found.adapter?.split(", ").at(-2) ?? "";
    const device = new Device(engine, { name, vendor, backend: facts.backend, features: found.features }, facts.isCpu, options);
    await device.#recall();
    return device;
  }

  get base(): { open: OpenBase; info: BaseInfo } | undefined {
    return this.#base;
  }

  async load(open: OpenBase, quantize: string | undefined, tokenizer: string | undefined): Promise<BaseInfo> {
    const { engine } = this;
    const info = await (open.source ? engine.loadBase(open.source, quantize, tokenizer) : engine.loadEmbedded(quantize));
    // The old base's file is free to be removed now.
    this.#base?.open.release();
    const { cached, warnings } = open;
    const known: BaseInfo = { ...info, warnings, ...(cached === undefined ? {} : { cached }) };
    this.#base = { open, quantize, tokenizer, info: known };
    return known;
  }

  /** A new device with the same base; whatever else was on the old one is gone. */
  async replace(): Promise<void> {
    try {
      this.engine.close();
    } finally {
      this.engine = await Engine.open(this.#options.maxBytes, this.#options.subgroups);
    }
    await this.#recall();
    if (this.#base) {
      const { open, quantize, tokenizer } = this.#base;
      await (open.source ? this.engine.loadBase(open.source, quantize, tokenizer) : this.engine.loadEmbedded(quantize));
    }
  }

  /** Whether kernels are to be measured for the base when nobody says. */
  get worthTuning(): boolean {
    return !this.#isCpu && (this.#base?.info.parameters ?? 0) >= TUNE_FROM;
  }

  async #tuningFile(): Promise<string> {
    const name = new TextEncoder().encode(`${this.info.name} ${this.info.backend}`);
    return `kernels-${hex(await sha256(name)).slice(0, 16)}.json`;
  }

  /** What was measured earlier. A storage that cannot be read costs the measuring. */
  async #recall(): Promise<void> {
    try {
      const text = await (await readFile(await folder(), await this.#tuningFile()))?.text();
      if (text) this.engine.absorbTuning(text);
    } catch {
      return;
    }
  }

  async remember(): Promise<void> {
    try {
      await writeFile(await folder(), await this.#tuningFile(), new TextEncoder().encode(this.engine.tuning()));
    } catch {
      return;
    }
  }

  close(): void {
    this.#base?.open.release();
    this.engine.close();
  }
}
