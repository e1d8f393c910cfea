/** Archives and addresses that were made to do harm. No browser: these are the functions that the page and the package use. */

import { expect, test } from "@playwright/test";
import { zipSync } from "fflate";
import { addressOf, nameOf } from "../package/src/sources";
import { crc32, unzip } from "../page/src/lib/zip";

const text = (content: string) => new TextEncoder().encode(content);
const archive = () => zipSync({ "a/x.json": [text("{}".repeat(500)), { level: 6 }], "b.bin": [text("bytes"), { level: 0 }], "c/": new Uint8Array(0) });

/** The archive with `change` made to the directory's entry number `index`. */
function changed(index: number, change: (view: DataView, entry: number) => void): Uint8Array {
  const bytes = archive();
  const view = new DataView(bytes.buffer);
  let at = view.getUint32(bytes.length - 6, true);
  for (let i = 0; i < index; i++) at += 46 + view.getUint16(at + 28, true) + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  change(view, at);
  return bytes;
}

const LIMIT = 10_000;

test("an honest archive is unpacked", () => {
  const files = unzip(archive(), LIMIT);
  expect(files.map(({ name, bytes }) => [name, new TextDecoder().decode(bytes)])).toEqual([["a/x.json", "{}".repeat(500)], ["b.bin", "bytes"]]);
  expect(crc32(text("123456789"))).toBe(0xcbf43926);
});

test("what archives unpack to is bounded in total", () => {
  expect(() => unzip(archive(), 1004)).toThrow("together, at most");
  expect(unzip(archive(), 1005)).toHaveLength(2);
  // A thousandfold bomb that says it is small gives no more than it says, and is found out by its checksum.
  const bomb = changed(0, (view, at) => view.setUint32(at + 24, 10, true));
  expect(() => unzip(bomb, LIMIT)).toThrow("a/x.json is damaged");
  const many = zipSync(Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`${i}`, new Uint8Array(0)])));
  expect(() => unzip(many, LIMIT)).toThrow("1001 files");
});

test("forged and damaged archives are refused by name", () => {
  const first = (view: DataView) => view.getUint32(archive().length - 6, true);
  const cases: [Uint8Array, string][] = [
    [changed(1, (view, at) => view.setUint32(at + 42, view.getUint32(first(view) + 42, true), true)), "shares bytes with another"],
    [changed(0, (view, at) => view.setUint32(at + 16, 1, true)), "a/x.json is damaged"],
    [changed(1, (view, at) => view.setUint32(at + 20, 4, true)), "b.bin is damaged"],
    [changed(1, (view, at) => view.setUint16(at + 10, 12, true)), "method 12"],
    [changed(1, (view, at) => view.setUint16(at + 8, 1, true)), "b.bin is encrypted"],
    [changed(1, (view, at) => view.setUint32(at + 42, 5, true)), "b.bin is not where the directory says"],
    [changed(0, (view, at) => view.setUint32(at, 0, true)), "directory is damaged"],
    [archive().slice(0, 60), "no zip file"],
    [text("PK"), "no zip file"],
    [new Uint8Array(0), "no zip file"],
  ];
  for (const [bytes, words] of cases) expect(() => unzip(bytes, LIMIT), words).toThrow(words);
});

test("no byte of an archive can change unnoticed, and none ends in anything but a sentence", () => {
  // Names have no checksum, contents have; `c/` with another name is an empty file.
  const contents = (bytes: Uint8Array) => unzip(bytes, LIMIT).map((file) => Buffer.from(file.bytes).toString("latin1")).filter(Boolean).join("|");
  const whole = contents(archive());
  for (let at = 0; at < archive().length; at++) {
    for (const flip of [1, 0x80]) {
      const bytes = archive();
      bytes[at] = (bytes[at] as number) ^ flip;
      let found: string;
      try {
        found = contents(bytes);
      } catch (error) {
        expect((error as Error).message).toMatch(/^(it|its|\S+) /);
        continue;
      }
      expect(found === whole, `byte ${at}`).toBe(true);
    }
  }
});

test("an address with a broken escape keeps its name, and what is no address is a message", () => {
  expect(nameOf("https://example.org/a/model%20one.gguf?x=1")).toBe("model one.gguf");
  expect(nameOf("https://example.org/a/%zz.gguf")).toBe("%zz.gguf");
  expect(() => addressOf("https://")).toThrow('"https://" is no address');
});
