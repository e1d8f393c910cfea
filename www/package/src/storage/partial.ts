// Downloads that were interrupted: `ID.bin` as far as it came, and `ID.part`, which says of what. A model that is whole has `ID.json` instead. Only
// files whose server names a version (an ETag, a date) can be taken up again: the rest of another version would make a file that never was.

import { WebloraError } from "../errors.js";
import { names, openFile, readFile, remove, writeFile, type SyncFile } from "./files.js";
import { wholePieces } from "./pieces.js";

/** What a download is of. */
export interface Origin {
  url: string;
  version: string;
  size: number;
}

interface Part extends Origin {
  /** SHA-256 of every piece so far. */
  pieces: string[];
}

/** A file that is written on: its id, what is in it, and itself. */
export interface Begun {
  id: string;
  pieces: string[];
  file: SyncFile;
}

const END = ".part";

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isPart(value: unknown): value is Part {
  const { url, version, size, pieces } = (value ?? {}) as Partial<Record<keyof Part, unknown>>;
  const texts = [url, version, ...(Array.isArray(pieces) ? (pieces as unknown[]) : [undefined])];
  return texts.every((text) => typeof text === "string") && typeof size === "number";
}

async function parts(at: FileSystemDirectoryHandle): Promise<Map<string, Part>> {
  const found = new Map<string, Part>();
  for (const name of await names(at)) {
    if (!name.endsWith(END)) continue;
    const id = name.slice(0, -END.length);
    const text = (await (await readFile(at, name))?.text()) ?? "";
    const part = parsed(text);
    if (isPart(part)) found.set(id, part);
    // Cut off while it was written, or not ours: what it was of is not known.
    else await removePart(at, id).catch(() => undefined);
  }
  return found;
}

/** Says how far a download is. */
export async function writePart(at: FileSystemDirectoryHandle, id: string, origin: Origin, pieces: string[]): Promise<void> {
  const { url, version, size } = origin;
  await writeFile(at, `${id}${END}`, new TextEncoder().encode(JSON.stringify({ url, version, size, pieces } satisfies Part)));
}

/** The download is whole: it is an entry from here on. */
export async function endPart(at: FileSystemDirectoryHandle, id: string): Promise<void> {
  await remove(at, `${id}${END}`);
}

/** Throws a download away; one that another tab is writing refuses that. */
export async function removePart(at: FileSystemDirectoryHandle, id: string): Promise<void> {
  await remove(at, `${id}.bin`);
  await endPart(at, id);
}

/** Throws all interrupted downloads away but `kept`. */
export async function removeParts(at: FileSystemDirectoryHandle, kept: string): Promise<void> {
  for (const id of (await parts(at)).keys()) if (id !== kept) await removePart(at, id).catch(() => undefined);
}

/** Takes up the download of `origin` where it stopped, at the last piece that is as it was written. Another version of the file is thrown away. */
export async function takeUp(at: FileSystemDirectoryHandle, origin: Origin): Promise<Begun | undefined> {
  for (const [id, part] of await parts(at)) {
    if (part.url !== origin.url) continue;
    if (part.version !== origin.version || part.size !== origin.size) {
      await removePart(at, id).catch(() => undefined);
      continue;
    }
    const file = await openFile(at, `${id}.bin`).catch((error: WebloraError) => {
      // Another tab is at it.
      if (error.code === "busy") return undefined;
      throw error;
    });
    if (file) return { id, file, pieces: part.pieces.slice(0, await wholePieces(file, part.pieces)) };
  }
  return undefined;
}
