/** Run files: TOML with the keys of the command line, so that `weblora train --config run.toml` does the same. */

import { parse, stringify } from "smol-toml";
import { fromFile, toFile, type FormSettings } from "./settings";
import { PageError } from "./problem";

/** Keys that say where things are, which a page and a command line do not share. */
const PLACES = ["model", "data", "eval-data", "init-adapter", "out", "name"];

/** A run file. Comments say what the page knows and the command line must be told. */
export function writeRunFile(settings: FormSettings, about: { base: string; rows: string }): string {
  const head = [
    "# weblora run file: the same keys as `weblora train --config run.toml`.",
    `# Base: ${oneLine(about.base)}. Give it with --model PATH.`,
    `# Rows: ${oneLine(about.rows)}. Give them with --data FILE.jsonl.`,
    "",
  ].join("\n");
  return `${head}\n${stringify(withoutPlaces(toFile(settings)))}`;
}

/** The settings in a run file, without paths. Unknown keys are found when the run is planned. */
export function readRunFile(text: string, name: string): FormSettings {
  try {
    return fromFile(withoutPlaces(parse(text) as FormSettings));
  } catch (error) {
    const line = (error as { line?: number }).line;
    const what = (error as Error).message.split("\n")[0];
    throw new PageError("format", `${name}${line ? `, line ${line}` : ""}: ${what}`);
  }
}

function withoutPlaces(settings: FormSettings): FormSettings {
  return Object.fromEntries(Object.entries(settings).filter(([key, value]) => !PLACES.includes(key) && value !== null && value !== undefined));
}

const oneLine = (text: string): string => text.replace(/\s+/g, " ");
