/** Saved runs of the stand-in: they survive a reload, as real ones do. */

import type * as T from "../../package/src/types";
import { WebloraError } from "../../package/src/errors";
import { checkpointBytes, peftFiles } from "./world";

interface Save extends Omit<T.Autosave, "rows"> {
  rows: T.Rows | T.Rows[];
  heldOut?: T.Rows | T.Rows[];
  contentHash: string;
  job?: NonNullable<T.Restored["job"]>;
}

const KEY = "fake.saves";

export class Saves {
  list(): T.Autosave[] {
    const name = (rows: T.Rows | T.Rows[]): string => Array.isArray(rows) ? rows.map(name).join(" + ") : ("embedded" in rows ? "swap" : (rows.name ?? "rows"));
    return this.#read().map(({ rows, heldOut: _heldOut, contentHash: _hash, job: _job, ...save }) => ({ ...save, rows: name(rows) }));
  }

  put(save: Save): void {
    this.#write([save, ...this.#read().filter(({ key }) => key !== save.key)]);
  }

  restore(key: string): T.Restored {
    const save = this.#read().find((each) => each.key === key);
    if (!save) throw new WebloraError("io", `there is no saved run ${key}`);
    const { rows, heldOut, contentHash, settings, step, base, job, state } = save;
    const restored: T.Restored = { rows, contentHash, settings, baseName: base, checkpoint: checkpointBytes(step, settings, contentHash) };
    if (heldOut) restored.heldOut = heldOut;
    if (job) restored.job = job;
    if (state !== "open") restored.adapter = peftFiles();
    if (contentHash.startsWith("0")) restored.base = { embedded: true };
    return restored;
  }

  discard(key: string): void {
    this.#write(this.#read().filter((save) => save.key !== key));
  }

  #read(): Save[] {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]") as Save[];
  }

  #write(saves: Save[]): void {
    localStorage.setItem(KEY, JSON.stringify(saves));
  }
}
