// An adapter's files as one zip file, to hand to a person. Stored, not packed: weights do not shrink.

import { WebloraError } from "./errors.js";
import type { AdapterFile } from "./types.js";

const [LOCAL, CENTRAL, END] = [0x04034b50, 0x02014b50, 0x06054b50];
const VERSION = 20;
/** Names are UTF-8. */
const UTF8 = 0x0800;
/** 1980-01-01, the first day that zip files know: the same files make the same bytes. */
const DATE = 0x21;
/** Beyond this the format needs its 64-bit form. */
const LARGEST = 0xffff_ffff;

const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes: Uint8Array): number {
  let value = ~0;
  for (let i = 0; i < bytes.length; i += 1) value = (value >>> 8) ^ (TABLE[(value ^ (bytes[i] as number)) & 255] as number);
  return ~value >>> 0;
}

/** Little-endian numbers of two or four bytes: `[bytes, value]`. */
function packed(...fields: [2 | 4, number][]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [width]) => sum + width, 0)));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

/** One zip file of several files, such as those of `exportAdapter`: `URL.createObjectURL(zip(files))` is a download. At most 4 GB. */
export function zip(files: AdapterFile[]): Blob {
  const [parts, directory]: [BlobPart[], BlobPart[]] = [[], []];
  let [at, listed] = [0, 0];
  for (const { name, bytes } of files) {
    const title = new TextEncoder().encode(name);
    const common: [2 | 4, number][] = [[2, VERSION], [2, UTF8], [2, 0], [2, 0], [2, DATE], [4, crc32(bytes)], [4, bytes.byteLength], [4, bytes.byteLength], [2, title.byteLength], [2, 0]];
    const local = packed([4, LOCAL], ...common);
    const entry = packed([4, CENTRAL], [2, VERSION], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]);
    parts.push(local, title, bytes as Uint8Array<ArrayBuffer>);
    directory.push(entry, title);
    at += local.byteLength + title.byteLength + bytes.byteLength;
    listed += entry.byteLength + title.byteLength;
    if (at + listed > LARGEST) throw new WebloraError("limit", "the files have more than 4 GB together; save them one by one");
  }
  const end = packed([4, END], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, listed], [4, at], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
