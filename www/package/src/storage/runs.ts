// Saved runs: what a run needs to go on after the page was closed.

import { WebloraError } from "../errors.js";
import type { Autosave, Restored, Settings } from "../crate_types.js";
import type { AdapterFile, BaseSource, BestAdapter, Rows } from "../types.js";
import { folder, names, readFile, remove } from "./files.js";
import { hold } from "./locks.js";
import { listModels } from "./models.js";
import { readRecord, removeRecord, takeBack, writeRecord } from "./slots.js";

/** What does not change while a run trains. */
export interface RunFacts {
  key: string;
  settings: Settings;
  rows: Rows | Rows[];
  heldOut?: Rows | Rows[];
  base?: BaseSource;
  /** Where the base was downloaded from, should its stored copy be gone. */
  url?: string;
  baseName: string;
  contentHash: string;
  /** Of a job among several. */
  job?: { set: string; name: string; priority: number; group?: string };
}

/** How a run stands; its checkpoint is the record's data. */
export interface Standing {
  step: number;
  total: number;
  savedAt: number;
  state?: Autosave["state"];
  loss?: number;
  bestEval?: number;
  /** Losses of a job, for early stopping. */
  curve?: string;
}

/** An adapter of a run, at its lowest held-out loss or at its end: its files one after the other are the record's data. */
interface SavedAdapter {
  step: number;
  files: { name: string; bytes: number }[];
}

const NOTHING = new Uint8Array(0);

/** Any text is a good key; file names are pickier. */
const folderName = (key: string) => `run-${encodeURIComponent(key)}`;

/** A run that is being saved. No other tab can save under its key meanwhile. */
export class RunStore {
  readonly #at: FileSystemDirectoryHandle;
  readonly #release: () => void;
  readonly #key: string;

  private constructor(at: FileSystemDirectoryHandle, release: () => void, key: string) {
    this.#at = at;
    this.#release = release;
    this.#key = key;
  }

  /** `anew`: what is left of an earlier run of that key is not this one's. */
  static async open(facts: RunFacts, anew: boolean): Promise<RunStore> {
    const release = await hold(`run:${facts.key}`, "exclusive", `another tab trains the run "${facts.key}"; stop it there, or save under another name`);
    try {
      const at = await folder("runs", folderName(facts.key));
      if (anew) for (const record of ["best", "end", "state"]) await removeRecord(at, record);
      await writeRecord(at, "facts", facts, NOTHING);
      return new RunStore(at, release, facts.key);
    } catch (error) {
      release();
      throw error;
    }
  }

  get key(): string {
    return this.#key;
  }

  save(standing: Omit<Standing, "savedAt">, checkpoint: Uint8Array<ArrayBuffer>): Promise<void> {
    return writeRecord(this.#at, "state", { ...standing, savedAt: Date.now() } satisfies Standing, checkpoint);
  }

  /** The step that was saved last. */
  async step(): Promise<number | undefined> {
    return (await readRecord<Standing>(this.#at, "state"))?.meta.step;
  }

  /** What was saved last has proven useless: what was saved before it counts again. */
  takeBack(): Promise<void> {
    return takeBack(this.#at, "state");
  }

  /** The adapter at the lowest held-out loss. */
  saveBest(step: number, files: AdapterFile[]): Promise<void> {
    return this.#saveAdapter("best", step, files);
  }

  /** The adapter of a run that is over. */
  saveEnd(step: number, files: AdapterFile[]): Promise<void> {
    return this.#saveAdapter("end", step, files);
  }

  #saveAdapter(record: "best" | "end", step: number, files: AdapterFile[]): Promise<void> {
    const data = new Uint8Array(files.reduce((sum, file) => sum + file.bytes.byteLength, 0));
    let at = 0;
    for (const { bytes } of files) {
      data.set(bytes, at);
      at += bytes.byteLength;
    }
    const meta: SavedAdapter = { step, files: files.map(({ name, bytes }) => ({ name, bytes: bytes.byteLength })) };
    return writeRecord(this.#at, record, meta, data);
  }

  best(): Promise<BestAdapter | undefined> {
    return readAdapter(this.#at, "best");
  }

  /** Forgets the run. */
  async discard(): Promise<void> {
    await remove(await folder("runs"), folderName(this.#key));
  }

  close(): void {
    this.#release();
  }
}

async function readAdapter(at: FileSystemDirectoryHandle, record: "best" | "end"): Promise<BestAdapter | undefined> {
  const found = await readRecord<SavedAdapter>(at, record);
  if (!found) return undefined;
  const { meta, data } = found;
  let end = 0;
  return { step: meta.step, files: meta.files.map(({ name, bytes }) => ({ name, bytes: data.slice(end, (end += bytes)) })) };
}

/** Every saved run, newest first: those that can go on, and those that are over. */
export async function listRuns(): Promise<Autosave[]> {
  const all = await folder("runs");
  const found: Autosave[] = [];
  for (const name of await names(all)) {
    const at = await all.getDirectoryHandle(name);
    const facts = await readRecord<RunFacts>(at, "facts");
    const state = await readRecord<Standing>(at, "state");
    if (!facts || !state) continue;
    const { step, total, savedAt, loss, bestEval, state: how = "open" } = state.meta;
    const { key, baseName: base, settings, rows, job } = facts.meta;
    const scores = { ...(loss === undefined ? {} : { loss }), ...(bestEval === undefined ? {} : { bestEval }), ...(job ? { jobs: job.set } : {}) };
    found.push({ key, base, rows: nameOf(rows), step, total, savedAt, settings, state: how, bytes: await sizeOf(at), ...scores });
  }
  return found.sort((a, b) => b.savedAt - a.savedAt);
}

const nameOf = (rows: Rows | Rows[]): string => {
  if (Array.isArray(rows)) return rows.map(nameOf).join(" + ");
  return "embedded" in rows ? "swap" : (rows.name ?? "rows");
};

async function sizeOf(at: FileSystemDirectoryHandle): Promise<number> {
  let sum = 0;
  for (const name of await names(at)) sum += (await readFile(at, name))?.size ?? 0;
  return sum;
}

export async function restoreRun(key: string): Promise<Restored> {
  const at = await folder("runs", folderName(key));
  const [facts, state] = [await readRecord<RunFacts>(at, "facts"), await readRecord<Standing>(at, "state")];
  if (!facts || !state) {
    throw new WebloraError("config", `there is no saved run "${key}", or both of its copies are damaged; start the run anew`);
  }
  const { settings, rows, heldOut, baseName, contentHash, job: known } = facts.meta;
  const [base, best, end] = [await findBase(facts.meta), await readAdapter(at, "best"), await readAdapter(at, "end")];
  const { curve } = state.meta;
  const job = known && { name: known.name, priority: known.priority, ...(known.group === undefined ? {} : { group: known.group }), ...(curve === undefined ? {} : { curve }) };
  const parts = { ...(heldOut ? { heldOut } : {}), ...(base ? { base } : {}), ...(best ? { best } : {}), ...(end ? { adapter: end.files } : {}), ...(job ? { job } : {}) };
  return { settings, rows, ...parts, baseName, contentHash, checkpoint: state.data };
}

/** Where the base is now: it may have made room for others since. */
async function findBase({ base, url }: RunFacts): Promise<BaseSource | undefined> {
  if (!base || !("cached" in base)) return base;
  if ((await listModels()).some((model) => model.key === base.cached)) return base;
  return url === undefined ? undefined : { url };
}

export async function discardRun(key: string): Promise<void> {
  const release = await hold(`run:${key}`, "exclusive", `the run "${key}" is still training; stop it first`);
  try {
    await remove(await folder("runs"), folderName(key));
  } finally {
    release();
  }
}
