/** Reading zip files that may be made to do harm: what they unpack to is bounded before anything is unpacked, no byte is read twice, and checksums are verified. */

import { inflateSync } from "fflate";

/** A file of an archive. */
export interface Entry {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** More files than an adapter or a run ever has. */
const MAX_ENTRIES = 1000;

const [END, CENTRAL, LOCAL] = [0x06054b50, 0x02014b50, 0x04034b50];
const [END_BYTES, CENTRAL_BYTES, LOCAL_BYTES] = [22, 46, 30];
const [STORED, DEFLATED] = [0, 8];
const ENCRYPTED = 1;

/** What the archive's directory says of a file. */
interface Listed {
  name: string;
  method: number;
  crc: number;
  packed: number;
  size: number;
  /** Of its local header. */
  at: number;
}

/** Unpacks an archive whose files have at most `limit` bytes together; folders are left out. Errors are half a sentence for people. */
export function unzip(bytes: Uint8Array, limit: number): Entry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { entries, directory } = list(view, bytes);
  const total = entries.reduce((sum, { size }) => sum + size, 0);
  if (total > limit) throw new Error(`its files have ${megabytes(total)} together, at most ${megabytes(limit)} are unpacked`);
  const placed = entries.map((entry) => ({ entry, from: entry.at, data: dataOf(view, entry) }));
  placed.sort((a, b) => a.from - b.from);
  let end = 0;
  for (const { entry, from, data } of placed) {
    if (from < end) throw new Error(`${entry.name} shares bytes with another file of the archive`);
    end = data + entry.packed;
    if (end > directory) throw new Error(`${entry.name} is cut off`);
  }
  const files = placed.filter(({ entry }) => !entry.name.endsWith("/"));
  return files.map(({ entry, data }) => ({ name: entry.name, bytes: content(entry, bytes.subarray(data, data + entry.packed)) }));
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;

/** The archive's directory, which stands at its end. */
function list(view: DataView, bytes: Uint8Array): { entries: Listed[]; directory: number } {
  let end = view.byteLength - END_BYTES;
  // A comment of up to 65,535 bytes may follow.
  const earliest = Math.max(0, end - 0xffff);
  while (end >= earliest && view.getUint32(end, true) !== END) end--;
  if (end < earliest) throw new Error("it is no zip file, or cut off");
  const [count, length, directory] = [view.getUint16(end + 10, true), view.getUint32(end + 12, true), view.getUint32(end + 16, true)];
  if (count === 0xffff || directory === 0xffffffff) throw new Error("it is a zip64 archive, which only files beyond 4 GB need");
  if (count > MAX_ENTRIES) throw new Error(`it has ${count} files, at most ${MAX_ENTRIES} are unpacked`);
  if (directory + length > end) throw new Error("its directory is cut off");
  const entries: Listed[] = [];
  const names = new Set<string>();
  let at = directory;
  while (entries.length < count) {
    if (at + CENTRAL_BYTES > end || view.getUint32(at, true) !== CENTRAL) throw new Error("its directory is damaged");
    const [nameLength, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true)) as [number, number, number];
    const next = at + CENTRAL_BYTES + nameLength + extra + comment;
    if (next > end) throw new Error("its directory is cut off");
    const name = new TextDecoder().decode(bytes.subarray(at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameLength));
    if (names.has(name)) throw new Error(`it has ${name} twice`);
    names.add(name);
    if (view.getUint16(at + 8, true) & ENCRYPTED) throw new Error(`${name} is encrypted`);
    const [crc, packed, size] = [16, 20, 24].map((offset) => view.getUint32(at + offset, true)) as [number, number, number];
    entries.push({ name, method: view.getUint16(at + 10, true), crc, packed, size, at: view.getUint32(at + 42, true) });
    at = next;
  }
  if (at !== directory + length) throw new Error("its directory is damaged");
  return { entries, directory };
}

/** Where a file's bytes begin. */
function dataOf(view: DataView, { name, at }: Listed): number {
  if (at + LOCAL_BYTES > view.byteLength || view.getUint32(at, true) !== LOCAL) throw new Error(`${name} is not where the directory says`);
  return at + LOCAL_BYTES + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
}

function content({ name, method, crc, size }: Listed, packed: Uint8Array): Uint8Array<ArrayBuffer> {
  if (method !== STORED && method !== DEFLATED) throw new Error(`${name} is packed in a way that is not known here (method ${method})`);
  const wrong = () => new Error(`${name} is damaged`);
  if (method === STORED && packed.byteLength !== size) throw wrong();
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    // Never more than the size that the directory promised.
    bytes = method === STORED ? packed.slice() : (inflateSync(packed, { out: new Uint8Array(size) }) as Uint8Array<ArrayBuffer>);
  } catch {
    throw wrong();
  }
  if (bytes.byteLength !== size || crc32(bytes) !== crc) throw wrong();
  return bytes;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** The checksum of zip files. */
export function crc32(bytes: Uint8Array): number {
  let value = ~0;
  for (const byte of bytes) value = (value >>> 8) ^ (TABLE[(value ^ byte) & 255] as number);
  return ~value >>> 0;
}
