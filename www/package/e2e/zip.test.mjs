// The zip helper, without a browser: other programs unpack what it makes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { unzipSync } from "fflate";

import { zip } from "../dist/zip.js";

test("an adapter's files are one zip file that others unpack", async () => {
  const files = [
    { name: "adapter_config.json", bytes: new TextEncoder().encode("{}") },
    { name: "folder/läuft.bin", bytes: Uint8Array.from({ length: 70_000 }, (_, i) => (i * i) % 251) },
    { name: "empty", bytes: new Uint8Array() },
  ];
  const blob = zip(files);
  assert.equal(blob.type, "application/zip");
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const found = unzipSync(bytes);
  assert.deepEqual(Object.keys(found), files.map(({ name }) => name));
  for (const { name, bytes: content } of files) assert.deepEqual(Buffer.from(found[name]), Buffer.from(content));
  // The same files make the same bytes.
  assert.deepEqual(Buffer.from(await zip(files).arrayBuffer()), Buffer.from(bytes));
  assert.equal((await zip([]).arrayBuffer()).byteLength, 22);
});
