// Models kept in the origin's storage. An entry is `ID.bin`, the file, and `ID.json`, written last: without it, the file is a leftover.
// `ID.part` instead is a download that was interrupted (partial.ts). Its key is the SHA-256 of the SHA-256s of its pieces, so the same content is
// kept once, whatever it was called, and is verified piece by piece, in bounded memory, whenever it is opened.

import { WebloraError } from "../errors.js";
import { fetchRange, fetchWhole, type RemoteFile } from "../sources.js";
import type { CacheEntry, Progress } from "../types.js";
import { folder, hex, names, openFile, readFile, remove, sha256, writeFile } from "./files.js";
import { exclusively, hold } from "./locks.js";
import { endPart, removePart, removeParts, takeUp, writePart, type Begun, type Origin } from "./partial.js";
import { PIECE, PieceWriter } from "./pieces.js";

/** Room that is left for everything else. */
const MARGIN = 32 * 1024 * 1024;
/** A file that is not whole and older than this was left behind by a closed page. */
const LEFTOVER = 24 * 3600 * 1000;

interface Meta {
  key: string;
  name: string;
  bytes: number;
  usedAt: number;
  pieces: string[];
  url?: string;
  version?: string;
}

/** An entry in use: its content, and what ends the use. */
export interface OpenModel {
  key: string;
  name: string;
  file: File;
  release: () => void;
}

type Report = (progress: Progress) => void;

const inUse = (key: string) => `model:${key}`;

async function metas(at: FileSystemDirectoryHandle): Promise<Map<string, Meta>> {
  const found = new Map<string, Meta>();
  for (const name of await names(at)) {
    if (!name.endsWith(".json")) continue;
    const text = await (await readFile(at, name))?.text();
    try {
      const meta = JSON.parse(text ?? "") as Meta;
      if (meta.key && Array.isArray(meta.pieces)) found.set(name.slice(0, -5), meta);
    } catch {
      // Cut off while it was written: the entry is a leftover.
    }
  }
  return found;
}

const writeMeta = (at: FileSystemDirectoryHandle, id: string, meta: Meta) =>
  writeFile(at, `${id}.json`, new TextEncoder().encode(JSON.stringify(meta)));

async function removeEntry(at: FileSystemDirectoryHandle, id: string): Promise<void> {
  await remove(at, `${id}.json`);
  await remove(at, `${id}.bin`);
}

/** Every entry, the last used first. */
export async function listModels(): Promise<CacheEntry[]> {
  const all = [...(await metas(await folder("models"))).values()];
  return all.map(({ key, name, bytes, usedAt }) => ({ key, name, bytes, usedAt })).sort((a, b) => b.usedAt - a.usedAt);
}

export async function removeModel(key: string): Promise<void> {
  await exclusively("models", async () => {
    const at = await folder("models");
    const release = await hold(inUse(key), "exclusive", "this model is in use, here or in another tab; load another base first");
    try {
      for (const [id, meta] of await metas(at)) if (meta.key === key) await removeEntry(at, id);
    } finally {
      release();
    }
  });
}

/** Opens an entry and verifies every byte of it. A damaged one is deleted. */
export async function openModel(key: string, report: Report): Promise<OpenModel> {
  const at = await folder("models");
  const release = await hold(inUse(key), "shared", "this model is just being removed in another tab");
  try {
    const [id, meta] = [...(await metas(at))].find(([, m]) => m.key === key) ?? [];
    if (!id || !meta) throw new WebloraError("config", `there is no stored model ${key}; load it from its file or address again`);
    const file = await readFile(at, `${id}.bin`);
    if (!file || !(await verify(file, meta, report))) {
      await removeEntry(at, id);
      throw new WebloraError("format", `the stored copy of ${meta.name} is damaged and was deleted; load it from its file or address again`);
    }
    await writeMeta(at, id, { ...meta, usedAt: Date.now() });
    return { key, name: meta.name, file, release };
  } catch (error) {
    release();
    throw error;
  }
}

async function verify(file: File, meta: Meta, report: Report): Promise<boolean> {
  if (file.size !== meta.bytes) return false;
  for (const [i, expected] of meta.pieces.entries()) {
    const piece = await file.slice(i * PIECE, (i + 1) * PIECE).arrayBuffer();
    if (hex(await sha256(new Uint8Array(piece))) !== expected) return false;
    report({ phase: "verify", done: Math.min((i + 1) * PIECE, file.size), total: file.size });
  }
  return true;
}

/** The entry that was downloaded from that address, if it is still what the server has. */
export async function findDownloaded(url: string, remote: RemoteFile | undefined): Promise<string | undefined> {
  const all = [...(await metas(await folder("models"))).values()].filter((meta) => meta.url === url);
  const fresh = all.find((meta) => !remote || ((remote.size ?? meta.bytes) === meta.bytes && (remote.version ?? meta.version) === meta.version));
  return fresh?.key;
}

/** Makes room for `bytes` more of download `own`: first by removing interrupted downloads, then what was not used for longest and is not in use now. */
async function makeRoom(at: FileSystemDirectoryHandle, bytes: number, own: string): Promise<void> {
  const known = await metas(at);
  for (const name of await names(at)) {
    const id = name.slice(0, -4);
    const file = name.endsWith(".bin") && !known.has(id) ? await readFile(at, name) : undefined;
    // One that is just being written refuses to be removed.
    if (file && id !== own && Date.now() - file.lastModified > LEFTOVER) await removePart(at, id).catch(() => undefined);
  }
  const oldest = [...known].sort(([, a], [, b]) => a.usedAt - b.usedAt);
  for (let cleared = false; ; cleared = true) {
    const { usage = 0, quota = Infinity } = await navigator.storage.estimate();
    if (quota - usage >= bytes + MARGIN) return;
    if (!cleared) {
      await removeParts(at, own);
      continue;
    }
    const next = oldest.shift();
    if (!next) {
      const room = Math.max(quota - usage - MARGIN, 0);
      throw new WebloraError("quota", `the model takes ${bytes} bytes and this site may store ${room} more; free space on the disk, or use it without keeping it`);
    }
    const [id, meta] = next;
    const release = await hold(inUse(meta.key), "exclusive", "").catch(() => undefined);
    if (!release) continue;
    await removeEntry(at, id).finally(release);
  }
}

/** Where an entry's bytes come from. */
export interface Incoming {
  name: string;
  /** Undefined where nobody says. */
  size: number | undefined;
  /** The bytes from `offset` on, in parts of any length. */
  bytes: (offset: number) => AsyncIterable<Uint8Array>;
  url?: string;
  version?: string;
  /** The bytes can be had from any offset. */
  ranges?: boolean;
}

/** What an interrupted download can be taken up by; undefined where it cannot. */
function originOf({ url, version, size, ranges }: Incoming): Origin | undefined {
  return ranges && url !== undefined && version !== undefined && size !== undefined ? { url, version, size } : undefined;
}

/** The file to write: that of an interrupted download, or a new one. */
async function begin(at: FileSystemDirectoryHandle, origin: Origin | undefined): Promise<Begun> {
  const begun = origin && (await takeUp(at, origin));
  if (begun) return begun;
  const id = crypto.randomUUID();
  return { id, pieces: [], file: await openFile(at, `${id}.bin`) };
}

/** Keeps a model: its key. The same content is kept once. A download that fails or is cancelled stays as far as it came, and is taken up by the next one. */
export async function keepModel(from: Incoming, report: Report): Promise<string> {
  const at = await folder("models");
  const origin = originOf(from);
  const { id, pieces, file } = await begin(at, origin);
  const writer = new PieceWriter(file, pieces, async (pieces) => void (origin && (await writePart(at, id, origin, pieces))));
  try {
    let done = writer.bytes;
    await exclusively("models", () => makeRoom(at, (from.size ?? done) - done, id));
    for await (const piece of from.bytes(done)) {
      await writer.add(piece);
      done += piece.byteLength;
      report({ phase: "download", done, total: from.size ?? done });
    }
    await writer.finish();
    file.truncate(writer.bytes);
    file.flush();
  } catch (error) {
    file.close();
    const interrupted = error instanceof WebloraError && (error.code === "network" || error.code === "aborted");
    if (!origin || !interrupted || writer.pieces.length === 0) await removePart(at, id).catch(() => undefined);
    throw error;
  }
  file.close();
  const key = hex(await sha256(new TextEncoder().encode(`${writer.bytes} ${writer.pieces.join(" ")}`)));
  const meta: Meta = { key, name: from.name, bytes: writer.bytes, usedAt: Date.now(), pieces: writer.pieces };
  if (from.url !== undefined) meta.url = from.url;
  if (from.version !== undefined) meta.version = from.version;
  return await exclusively("models", async () => {
    for (const [other, found] of await metas(at)) {
      if (found.key === key && (await readFile(at, `${other}.bin`))?.size === found.bytes) {
        await removePart(at, id);
        await writeMeta(at, other, { ...found, ...meta });
        return key;
      }
    }
    await writeMeta(at, id, meta);
    await endPart(at, id);
    return key;
  });
}

/** The bytes of a file on a server, whichever way it gives them; from an offset where it answers ranges. */
export async function* download(remote: RemoteFile, from: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
  if (!remote.ranges || remote.size === undefined) {
    yield* fetchWhole(remote, signal);
    return;
  }
  for (let offset = from; offset < remote.size; offset += PIECE) {
    yield await fetchRange(remote, offset, Math.min(PIECE, remote.size - offset), signal);
  }
}

/** The pieces of a Blob. */
export async function* piecesOf(blob: Blob, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
  for (let offset = 0; offset < blob.size; offset += PIECE) {
    if (signal.aborted) throw new WebloraError("aborted", "aborted by request");
    yield new Uint8Array(await blob.slice(offset, offset + PIECE).arrayBuffer());
  }
}
