// A record that survives being cut off while it is written: two files take turns, each with a number and a checksum. The newest whole one
// counts, and a write never touches it.
//
// File: "WEBLORA1", number u32, bytes of meta u32, bytes of data u32, SHA-256 of all that (but itself) and meta and data, meta (JSON), data.
// Little-endian.

import { hex, readFile, remove, sha256, writeFile } from "./files.js";

const MAGIC = new TextEncoder().encode("WEBLORA1");
const HEAD = MAGIC.length + 12;
const DIGEST = 32;

/** A whole record. */
export interface Record<M> {
  number: number;
  meta: M;
  data: Uint8Array<ArrayBuffer>;
}

/** The record in one file; undefined when there is none or it is damaged. */
async function readSlot<M>(at: FileSystemDirectoryHandle, name: string): Promise<Record<M> | undefined> {
  const file = await readFile(at, name);
  if (!file || file.size < HEAD + DIGEST) return undefined;
  // Another tab may be writing this one.
  const content = await file.arrayBuffer().catch(() => undefined);
  if (!content || content.byteLength < HEAD + DIGEST) return undefined;
  const bytes = new Uint8Array(content);
  if (MAGIC.some((byte, i) => bytes[i] !== byte)) return undefined;
  const view = new DataView(bytes.buffer);
  const [number, metaLength, dataLength] = [8, 12, 16].map((offset) => view.getUint32(offset, true)) as [number, number, number];
  if (bytes.byteLength !== HEAD + DIGEST + metaLength + dataLength) return undefined;
  const body = bytes.subarray(HEAD + DIGEST);
  const found = await checksum(bytes.subarray(0, HEAD), body.subarray(0, metaLength), body.subarray(metaLength));
  if (hex(found) !== hex(bytes.subarray(HEAD, HEAD + DIGEST))) return undefined;
  try {
    return { number, meta: JSON.parse(new TextDecoder().decode(body.subarray(0, metaLength))) as M, data: body.slice(metaLength) };
  } catch {
    return undefined;
  }
}

/** SHA-256 of the parts' own digests: the data is hashed where it lies. */
async function checksum(...parts: Uint8Array<ArrayBuffer>[]): Promise<Uint8Array<ArrayBuffer>> {
  const all = new Uint8Array(DIGEST * parts.length);
  for (const [i, part] of parts.entries()) all.set(await sha256(part), i * DIGEST);
  return sha256(all);
}

const slots = (name: string): [string, string] => [`${name}.0`, `${name}.1`];

/** The newest whole record called `name`. */
export async function readRecord<M>(at: FileSystemDirectoryHandle, name: string): Promise<Record<M> | undefined> {
  const [a, b] = await Promise.all(slots(name).map((slot) => readSlot<M>(at, slot)));
  return a && b ? (a.number > b.number ? a : b) : (a ?? b);
}

/** Removes the record called `name`, if there is one. */
export async function removeRecord(at: FileSystemDirectoryHandle, name: string): Promise<void> {
  for (const slot of slots(name)) await remove(at, slot);
}

/** Replaces the record called `name`; until that is done, and if it fails, the old one stays. */
export async function writeRecord(at: FileSystemDirectoryHandle, name: string, meta: object, data: Uint8Array<ArrayBuffer>): Promise<void> {
  const newest = await readRecord(at, name);
  const number = (newest?.number ?? 0) + 1;
  const text = new TextEncoder().encode(JSON.stringify(meta));
  const head = new Uint8Array(HEAD);
  head.set(MAGIC);
  const view = new DataView(head.buffer);
  [number, text.byteLength, data.byteLength].forEach((value, i) => view.setUint32(8 + 4 * i, value, true));
  // Odd and even numbers have a file each, so the newest record's file is not this one.
  await writeFile(at, slots(name)[number % 2] as string, head, await checksum(head, text, data), text, data);
}

/** Takes the newest record called `name` back, so that the one before it counts again. Where that one is gone or damaged, the newest stays. */
export async function takeBack(at: FileSystemDirectoryHandle, name: string): Promise<void> {
  const [first, second] = slots(name);
  const [a, b] = [await readSlot(at, first), await readSlot(at, second)];
  if (a && b) await remove(at, a.number > b.number ? first : second);
}
