// From where a base comes to bytes by range, by way of the origin's storage where that is wished and possible.

import type { ByteSource } from "../wasm/weblora.js";
import { WebloraError } from "./errors.js";
import { addressOf, blobSource, fetchWhole, httpSource, probe, type RemoteFile } from "./sources.js";
import { download, findDownloaded, keepModel, openModel, piecesOf, type OpenModel } from "./storage/models.js";
import type { BaseSource, Progress } from "./types.js";

/** A base that can be opened, and opened again after the device was lost. */
export interface OpenBase {
  /** Undefined for the embedded model. */
  source: ByteSource | undefined;
  /** How a later page finds it; undefined for a file that is not kept. */
  again: BaseSource | undefined;
  /** Key in the storage. */
  cached?: string;
  /** Where it was downloaded from. */
  url?: string;
  /** What the user should know. */
  warnings: string[];
  release: () => void;
}

type Report = (progress: Progress) => void;

export async function openBase(from: BaseSource, signal: AbortSignal, report: Report): Promise<OpenBase> {
  if ("embedded" in from) return { source: undefined, again: { embedded: true }, warnings: [], release: () => undefined };
  if ("cached" in from) return stored(await openModel(from.cached, report));
  if ("file" in from) return await openPicked(from.file, from.name ?? nameOf(from.file), from.cache ?? false, signal, report);
  if ("url" in from) return await openRemote(addressOf(from.url), from.cache ?? true, signal, report);
  throw new WebloraError("config", "the base is none of embedded, file, url or cached; pass one of them");
}

const nameOf = (blob: Blob) => (blob as Partial<File>).name ?? "model.gguf";

function stored(model: OpenModel): OpenBase {
  const { key, name, file, release } = model;
  return { source: blobSource(file, name), again: { cached: key }, cached: key, warnings: [], release };
}

/** Whether a failure only means that nothing can be kept. */
const storageFailed = (error: unknown): error is WebloraError => error instanceof WebloraError && ["quota", "storage_denied"].includes(error.code);

async function openPicked(blob: Blob, name: string, keep: boolean, signal: AbortSignal, report: Report): Promise<OpenBase> {
  const plain = (warnings: string[]): OpenBase => ({ source: blobSource(blob, name), again: undefined, warnings, release: () => undefined });
  if (!keep) return plain([]);
  // Anything but a GGUF file is refused before it is copied.
  const magic = new TextDecoder().decode(await blob.slice(0, 4).arrayBuffer());
  if (magic !== "GGUF") return plain([]);
  try {
    const key = await keepModel({ name, size: blob.size, bytes: () => piecesOf(blob, signal) }, report);
    return stored(await openModel(key, () => undefined));
  } catch (error) {
    if (storageFailed(error)) return plain([`${name} is not kept for later: ${error.message}`]);
    throw error;
  }
}

async function openRemote(url: string, keep: boolean, signal: AbortSignal, report: Report): Promise<OpenBase> {
  let unreachable: WebloraError | undefined;
  const remote = await probe(url, signal).catch((error: WebloraError) => {
    if (error.code !== "network") throw error;
    unreachable = error;
    return undefined;
  });
  const warnings: string[] = [];
  if (keep) {
    try {
      const known = await findDownloaded(url, remote);
      // A damaged copy is gone after that, and is fetched again where the server can be reached.
      const opened = known ? await openModel(known, report).catch((error: unknown) => (remote ? undefined : Promise.reject(error))) : undefined;
      if (opened) return { ...stored(opened), url };
      if (remote) {
        const { name, size, ranges } = remote;
        const incoming = { name, size, ranges, bytes: (offset: number) => download(remote, offset, signal), url };
        const key = await keepModel({ ...incoming, ...(remote.version ? { version: remote.version } : {}) }, report);
        return { ...stored(await openModel(key, () => undefined)), url };
      }
    } catch (error) {
      if (!storageFailed(error)) throw error;
      warnings.push(`${remote?.name ?? url} is not kept for later: ${error.message}`);
    }
  }
  if (!remote) throw unreachable ?? new WebloraError("network", `${url} cannot be reached`);
  const again: BaseSource = { url, cache: false };
  if (remote.ranges && remote.size !== undefined) {
    return { source: httpSource({ ...remote, size: remote.size }), again, warnings, release: () => undefined };
  }
  return { source: blobSource(await whole(remote, signal, report), remote.name), again, warnings, release: () => undefined };
}

/** A file from a server without ranges, held by the browser (which moves large ones to disk), outside the wasm module's memory. */
async function whole(remote: RemoteFile, signal: AbortSignal, report: Report): Promise<Blob> {
  let blob = new Blob([]);
  let pending: Uint8Array<ArrayBuffer>[] = [];
  let [held, done] = [0, 0];
  const spill = () => {
    blob = new Blob([blob, ...pending]);
    [pending, held] = [[], 0];
  };
  for await (const piece of fetchWhole(remote, signal)) {
    pending.push(piece);
    held += piece.byteLength;
    done += piece.byteLength;
    if (held > 1 << 24) spill();
    report({ phase: "download", done, total: remote.size ?? done });
  }
  spill();
  return blob;
}
