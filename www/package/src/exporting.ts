// Where exports go: into memory, or piece by piece into a file of the origin's storage.

import type { Engine, ExportSink } from "../wasm/weblora.js";
import { folder, names, openFile, readFile, remove, writeAt } from "./storage/files.js";
import type { AdapterFile, AdapterFormat, ExportReport, MergedModel, Progress, WeightFormat } from "./types.js";

const FOLDER = "exports";

/** Milliseconds after which nobody saves a merged model of an earlier visit any more. */
const STALE = 3_600_000;

/** An adapter's files in another format. */
export async function adapterAs(engine: Engine, files: AdapterFile[], format: AdapterFormat): Promise<AdapterFile[]> {
  if (format === "peft") return files;
  const made: AdapterFile[] = [];
  let at = 0;
  const sink: ExportSink = {
    begin: (name, bytes) => {
      made.push({ name, bytes: new Uint8Array(bytes) });
      at = 0;
    },
    write: (bytes) => {
      made.at(-1)?.bytes.set(bytes, at);
      at += bytes.byteLength;
    },
    end: () => undefined,
  };
  await engine.exportTo(files, format, undefined, sink);
  return made;
}

/** Base and adapter as one GGUF file, never whole in memory. */
export async function mergedModel(engine: Engine, files: AdapterFile[], format: WeightFormat | undefined, progress: (progress: Progress) => void): Promise<MergedModel> {
  await sweepExports(0);
  const at = await folder(FOLDER);
  const name = `${crypto.randomUUID()}.gguf`;
  const target = await openFile(at, name);
  let report: ExportReport;
  try {
    let [done, total] = [0, 0];
    const sink: ExportSink = {
      begin: (_, bytes) => {
        total = bytes;
        target.truncate(0);
      },
      write: (bytes) => {
        writeAt(target, bytes, done);
        done += bytes.byteLength;
        progress({ phase: "export", done, total });
      },
      end: () => target.flush(),
    };
    report = await engine.exportTo(files, "merged-gguf", format, sink);
    target.close();
  } catch (error) {
    target.close();
    await remove(at, name);
    throw error;
  }
  const file = await readFile(at, name);
  if (!file) throw new Error(`${name} is gone`);
  return { ...report, file };
}

/** Removes merged models that are older than that; one that another tab writes stays. */
export async function sweepExports(age = STALE): Promise<void> {
  try {
    const at = await folder(FOLDER);
    for (const name of await names(at)) {
      const file = await readFile(at, name);
      if (file && Date.now() - file.lastModified >= age) await remove(at, name).catch(() => undefined);
    }
  } catch {
    // Without storage there is nothing to remove.
  }
}
