// Writes src/settings.ts, the types of a run's settings, from the crate's own table, as the built wasm module has it:
//   node scripts/settings.mjs          writes the file
//   node scripts/settings.mjs --check  fails where it, or a file that is named, is not what would be written

import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { Engine, initSync } from "../wasm/weblora.js";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const TARGET = at("../src/settings.ts");

/** Names of places and of the base, which no form shows; the other keys are in the table. */
const PLACES = [
  { key: "name", kind: "text", default: "main", help: "What events and files call the run" },
];

const camel = (key) => key.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
const property = (key) => (/^[a-z0-9]+$/i.test(key) ? key : JSON.stringify(key));
const typeName = (method) => `${method.replace(/(^|-)(.)/g, (_, __, letter) => letter.toUpperCase())}Settings`;

function type({ kind, choices }) {
  switch (kind) {
    case "switch":
      return "boolean";
    case "count":
    case "number":
      return "number";
    case "counts":
    case "numbers":
      return "number[]";
    case "names":
      return "string[]";
    case "patterns":
      return "Record<string, number>";
    case "choice":
      // A choice of on and off is a switch, too.
      return [...choices.map((name) => JSON.stringify(name)), ...(choices.includes("off") ? ["boolean"] : [])].join(" | ");
    default:
      return "string";
  }
}

/** A setting, and its name of before. */
function rows(setting) {
  const { key, help, default: value, min, max } = setting;
  const bounds = [min === undefined ? "" : `at least ${min}`, max === undefined || max >= 2 ** 40 ? "" : `at most ${max}`].filter(Boolean).join(", ");
  const about = [help, value === null ? "" : `default ${JSON.stringify(value)}`, bounds].filter(Boolean).join("; ");
  const own = `  /** ${about.replaceAll("*/", "* /")}. */\n  ${camel(key)}?: ${type(setting)};`;
  const before = camel(key) === key ? [] : [`  /** @deprecated The name of before: \`${camel(key)}\`. */\n  ${property(key)}?: ${type(setting)};`];
  return [own, ...before];
}

function text() {
  const methods = Engine.methods().map(({ name, help }) => ({ name, help, table: Engine.settings(name) }));
  const common = [...PLACES, ...methods[0].table.filter(({ method }) => method === undefined)];
  const ownKeys = (table) => table.filter(({ method }) => method !== undefined);
  const all = [...new Set(methods.flatMap(({ table }) => ownKeys(table).map(({ key }) => key)))];
  const names = (key) => [...new Set([camel(key), key])];
  const parts = methods.map(({ name, help, table }, i) => {
    const own = ownKeys(table);
    const others = all.filter((key) => !own.some((setting) => setting.key === key)).flatMap(names);
    const optional = i === 0 ? "?" : "";
    const without = others.length > 0 ? `, Without<${others.map((key) => JSON.stringify(key)).join(" | ")}>` : "";
    return [`/** ${help}. */`, `export interface ${typeName(name)} extends CommonSettings${without} {`, `  method${optional}: ${JSON.stringify(name)};`, ...own.flatMap(rows), "}", ""].join("\n");
  });
  return [
    "// Made by scripts/settings.mjs from the crate's table of settings; not to be edited.",
    "",
    "/** Settings of other methods. */",
    "type Without<K extends string> = { [P in K]?: never };",
    "",
    "/** What a run of any method takes. All of it may be left out. */",
    "export interface CommonSettings {",
    ...common.flatMap(rows),
    "}",
    "",
    ...parts,
    "/** Settings of a run, by its method; without one it is plain LoRA. */",
    `export type Settings = ${methods.map(({ name }) => typeName(name)).join(" | ")};`,
    "",
    "/** Those of one method. */",
    'export type SettingsOf<M extends NonNullable<Settings["method"]>> = Extract<Settings, { method?: M }>;',
    "",
  ].join("\n");
}

initSync({ module: await readFile(at("../wasm/weblora_bg.wasm")) });
const made = text();
const [check, file = TARGET] = process.argv.slice(2);
if (check !== "--check") await writeFile(TARGET, made);
else if ((await readFile(file, "utf8").catch(() => "")) !== made) {
  console.error(`${file} is not what the crate's table says: run \`npm run settings\` in www/package`);
  process.exit(1);
}
