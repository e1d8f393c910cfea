// The origin's private file system, as a Worker may use it: folders, whole files, and pieces of large ones.

import { WebloraError } from "../errors.js";

/** The part of `FileSystemSyncAccessHandle` that is used; TypeScript's DOM library leaves it to its Worker library. */
export interface SyncFile {
  read(bytes: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

const DENIED =
  "this browser does not let the page keep files (private browsing, or storage is blocked for this site); nothing can be saved for later";

/** The folder of that path below this package's own; made when it is not there. */
export async function folder(...path: string[]): Promise<FileSystemDirectoryHandle> {
  try {
    let at = await navigator.storage.getDirectory();
    for (const name of ["weblora", ...path]) at = await at.getDirectoryHandle(name, { create: true });
    return at;
  } catch (error) {
    if (error instanceof DOMException && error.name === "QuotaExceededError") throw full(error);
    throw new WebloraError("storage_denied", DENIED, [String(error)]);
  }
}

function full(cause: unknown, bytes?: number): WebloraError {
  const what = bytes === undefined ? "" : ` for ${bytes} bytes`;
  return new WebloraError("quota", `the storage of this site is full${what}; remove a model or a saved run, or free space on the disk`, [String(cause)]);
}

/** Opens a file for writing in place. No one else can meanwhile, in any tab. */
export async function openFile(at: FileSystemDirectoryHandle, name: string): Promise<SyncFile> {
  try {
    const handle = await at.getFileHandle(name, { create: true });
    return await (handle as unknown as { createSyncAccessHandle(): Promise<SyncFile> }).createSyncAccessHandle();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NoModificationAllowedError") {
      throw new WebloraError("busy", `${name} is being written in another tab; close that tab or wait`, [String(error)]);
    }
    if (error instanceof DOMException && error.name === "QuotaExceededError") throw full(error);
    throw new WebloraError("storage_denied", DENIED, [String(error)]);
  }
}

/** Writes all of `bytes`; a disk that takes less is full. */
export function writeAt(file: SyncFile, bytes: Uint8Array, at: number): void {
  let written: number;
  try {
    written = file.write(bytes, { at });
  } catch (error) {
    throw full(error, bytes.byteLength);
  }
  if (written !== bytes.byteLength) throw full(`${written} bytes were written`, bytes.byteLength);
}

/** Replaces a file's content. Cut off in the middle, the file is damaged: callers recognise that. */
export async function writeFile(at: FileSystemDirectoryHandle, name: string, ...parts: Uint8Array[]): Promise<void> {
  const file = await openFile(at, name);
  try {
    file.truncate(0);
    let offset = 0;
    for (const part of parts) {
      writeAt(file, part, offset);
      offset += part.byteLength;
    }
    file.flush();
  } finally {
    file.close();
  }
}

/** A file's content, or undefined where there is none. */
export async function readFile(at: FileSystemDirectoryHandle, name: string): Promise<File | undefined> {
  try {
    return await (await at.getFileHandle(name)).getFile();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}

/** Removes a file or folder; it need not be there. */
export async function remove(at: FileSystemDirectoryHandle, name: string): Promise<void> {
  try {
    await at.removeEntry(name, { recursive: true });
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return;
    throw new WebloraError("busy", `${name} is in use in another tab; close that tab and try again`, [String(error)]);
  }
}

/** Names in a folder. */
export async function names(at: FileSystemDirectoryHandle): Promise<string[]> {
  const found: string[] = [];
  for await (const name of (at as unknown as { keys(): AsyncIterable<string> }).keys()) found.push(name);
  return found.sort();
}

export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
