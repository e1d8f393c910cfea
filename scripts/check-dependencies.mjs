// Checks what others' code comes in and how: www/package-lock.json names every package with its checksum, for every platform, and no server;
// licences are of a known list; no crate comes in two versions but those that are known to. Reads the lock files and `cargo metadata`, no registry.
// Run it from anywhere: node scripts/check-dependencies.mjs

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Licences that code here may be under: permissive ones; and of tools, which no product contains, also MPL-2.0, Python's and Blue Oak's. */
const LICENCES = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "Zlib", "Unlicense", "Unicode-3.0"];
const TOOL_LICENCES = [...LICENCES, "MPL-2.0", "Python-2.0", "BlueOak-1.0.0"];

/** Crates that come twice: what brings the older one, which a newer release of that will end. */
const TWICE = {
  "bit-set": "fancy-regex 0.17",
  "bit-vec": "fancy-regex 0.17",
  getrandom: "tokenizers",
  hashbrown: "wgpu",
  "r-efi": "getrandom 0.3",
  rand: "tokenizers",
  rand_core: "rand 0.9",
  syn: "derive macros on their way to syn 3",
};

/** Whether an SPDX expression can be met with `allowed`. A slash is how Cargo once wrote OR. */
export function isAllowed(expression, allowed) {
  const text = expression.replaceAll("/", " OR ").replaceAll(/\s+/g, " ").trim();
  const parts = (joint) => {
    const found = [""];
    let depth = 0;
    for (const word of text.replaceAll(/[()]/g, " $& ").split(" ").filter(Boolean)) {
      if (word === "(") depth++;
      if (word === ")") depth--;
      if (word === joint && depth === 0) found.push("");
      else found[found.length - 1] += ` ${word}`;
    }
    return found.map((part) => part.trim());
  };
  if (parts("OR").length > 1) return parts("OR").some((part) => isAllowed(part, allowed));
  if (parts("AND").length > 1) return parts("AND").every((part) => isAllowed(part, allowed));
  return text.startsWith("(") ? isAllowed(text.slice(1, -1), allowed) : allowed.includes(text);
}

/** What is wrong with an npm lock file. */
export function checkLock(lock) {
  const wrong = [];
  const packages = Object.entries(lock.packages);
  for (const [place, entry] of packages) {
    if (!place.includes("node_modules/") || entry.link) continue;
    const says = (problem) => wrong.push(`www/package-lock.json: ${place} ${entry.version}: ${problem}`);
    if (!/^sha512-[A-Za-z0-9+/]{86}==$/.test(entry.integrity ?? "")) says("no SHA-512 checksum");
    if (entry.resolved) says("names the server that it came from");
    if (!entry.license || !isAllowed(entry.license, TOOL_LICENCES)) says(`its licence is ${entry.license ?? "not named"}`);
    for (const name of Object.keys({ ...entry.dependencies, ...entry.optionalDependencies })) {
      // Nested next to its user, or further up.
      const places = place.split("/node_modules/").map((_, i, all) => `${all.slice(0, all.length - i).join("/node_modules/")}/node_modules/${name}`);
      if (![...places, `node_modules/${name}`].some((found) => lock.packages[found])) says(`its dependency ${name} is missing (another platform's?)`);
    }
  }
  if (packages.length < 10) wrong.push("www/package-lock.json: hardly any packages");
  return wrong;
}

/** What is wrong with the crates that `cargo metadata` lists. */
export function checkCrates(metadata) {
  const wrong = [];
  const versions = new Map();
  for (const { name, version, license } of metadata.packages) {
    if (!license || !isAllowed(license, LICENCES)) wrong.push(`${name} ${version}: its licence is ${license ?? "not named"}`);
    versions.set(name, [...(versions.get(name) ?? []), version]);
  }
  for (const [name, all] of versions) if (all.length > 1 && !(name in TWICE)) wrong.push(`${name} comes in versions ${all.join(" and ")}`);
  for (const name of Object.keys(TWICE)) if ((versions.get(name)?.length ?? 0) < 2) wrong.push(`${name} comes once now: take it off the list in scripts/check-dependencies.mjs`);
  return wrong;
}

/** The checks can fail. */
function checkThemselves(lock, metadata) {
  const changed = (change) => {
    const copy = structuredClone(lock);
    change(copy.packages);
    return checkLock(copy);
  };
  const name = "node_modules/vite";
  const failing = [
    changed((packages) => delete packages[name].integrity),
    changed((packages) => (packages[name].resolved = "https://registry.example/vite.tgz")),
    changed((packages) => (packages[name].license = "GPL-3.0-only")),
    changed((packages) => delete packages["node_modules/@rolldown/binding-darwin-arm64"]),
    checkCrates({ packages: [...metadata.packages, { name: "serde", version: "0.9.0", license: "MIT" }] }),
    checkCrates({ packages: [...metadata.packages, { name: "new", version: "1.0.0", license: "MIT AND (GPL-3.0-only OR AGPL-3.0-only)" }] }),
  ];
  return failing.flatMap((found, i) => (found.length === 1 ? [] : [`check ${i} of the checks found ${found.length} mistakes, 1 was made`]));
}

const lock = JSON.parse(readFileSync(`${root}www/package-lock.json`, "utf8"));
const metadata = JSON.parse(execFileSync("cargo", ["metadata", "--locked", "--format-version", "1"], { cwd: root, maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] }).toString());
const wrong = [...checkLock(lock), ...checkCrates(metadata)];
if (wrong.length === 0) wrong.push(...checkThemselves(lock, metadata));
if (!existsSync(`${root}www/.npmrc`)) wrong.push("www/.npmrc is missing: npm would write its server into the lock file");
wrong.forEach((line) => console.error(line));
if (wrong.length > 0) process.exit(1);
console.log(`dependencies: ${metadata.packages.length} crates, ${Object.keys(lock.packages).length} npm packages: checksums, platforms, licences and versions are in order`);
