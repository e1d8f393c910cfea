// Saved runs: what a run needs to go on after the page was closed.

import { WebloraError } from "../errors.js";
import type { AdapterFile, Autosave, BaseSource, BestAdapter, Restored, Rows, Settings } from "../types.js";
import { folder, names, remove } from "./files.js";
import { hold } from "./locks.js";
import { listModels } from "./models.js";
import { readRecord, removeRecord, writeRecord } from "./slots.js";

/** What does not change while a run trains. */
export interface RunFacts {
  key: string;
  settings: Settings;
  rows: Rows;
  heldOut?: Rows;
  base?: BaseSource;
  /** Where the base was downloaded from, should its stored copy be gone. */
  url?: string;
  baseName: string;
  contentHash: string;
}

interface Standing {
  step: number;
  total: number;
  savedAt: number;
}

/** The adapter of a run at its lowest held-out loss: its files one after the other are the record's data. */
interface Best {
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
      if (anew) await removeRecord(at, "best");
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

  save(step: number, total: number, checkpoint: Uint8Array<ArrayBuffer>): Promise<void> {
    return writeRecord(this.#at, "state", { step, total, savedAt: Date.now() } satisfies Standing, checkpoint);
  }

  saveBest(step: number, files: AdapterFile[]): Promise<void> {
    const data = new Uint8Array(files.reduce((sum, file) => sum + file.bytes.byteLength, 0));
    let at = 0;
    for (const { bytes } of files) {
      data.set(bytes, at);
      at += bytes.byteLength;
    }
    const meta: Best = { step, files: files.map(({ name, bytes }) => ({ name, bytes: bytes.byteLength })) };
    return writeRecord(this.#at, "best", meta, data);
  }

  best(): Promise<BestAdapter | undefined> {
    return readBest(this.#at);
  }

  close(): void {
    this.#release();
  }
}

async function readBest(at: FileSystemDirectoryHandle): Promise<BestAdapter | undefined> {
  const found = await readRecord<Best>(at, "best");
  if (!found) return undefined;
  const { meta, data } = found;
  let end = 0;
  return { step: meta.step, files: meta.files.map(({ name, bytes }) => ({ name, bytes: data.slice(end, (end += bytes)) })) };
}

/** Every saved run that can go on, newest first. */
export async function listRuns(): Promise<Autosave[]> {
  const all = await folder("runs");
  const found: Autosave[] = [];
  for (const name of await names(all)) {
    const at = await all.getDirectoryHandle(name);
    const facts = await readRecord<RunFacts>(at, "facts");
    const state = await readRecord<Standing>(at, "state");
    if (!facts || !state) continue;
    const { step, total, savedAt } = state.meta;
    found.push({ key: facts.meta.key, base: facts.meta.baseName, step, total, savedAt, settings: facts.meta.settings });
  }
  return found.sort((a, b) => b.savedAt - a.savedAt);
}

export async function restoreRun(key: string): Promise<Restored> {
  const at = await folder("runs", folderName(key));
  const [facts, state] = [await readRecord<RunFacts>(at, "facts"), await readRecord<Standing>(at, "state")];
  if (!facts || !state) {
    throw new WebloraError("config", `there is no saved run "${key}", or both of its copies are damaged; start the run anew`);
  }
  const { settings, rows, heldOut, baseName, contentHash } = facts.meta;
  const [base, best] = [await findBase(facts.meta), await readBest(at)];
  return { settings, rows, ...(heldOut ? { heldOut } : {}), ...(base ? { base } : {}), ...(best ? { best } : {}), baseName, contentHash, checkpoint: state.data };
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
