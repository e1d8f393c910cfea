// The one place where names change: camelCase for pages, the crate's dashes and underscores for the Worker. Names of before are understood for one
// version, with a warning.

import type * as C from "./crate_types.js";
import type * as P from "./types.js";

type Named = Record<string, unknown>;

const camel = (key: string): string => key.replace(/[-_](.)/g, (_, letter: string) => letter.toUpperCase());
const dashed = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
const underscored = (key: string): string => dashed(key).replaceAll("-", "_");

const told = new Set<string>();

function tell(before: string): void {
  if (told.has(before)) return;
  told.add(before);
  console.warn(`weblora: ${before} is called ${camel(before)} now; the old name goes with the next minor version`);
}

/** With the names of before, which can be read and are no part of a listing. */
function withBefore<T extends object>(made: T, before: (key: string) => string): T {
  for (const key of Object.keys(made)) {
    const name = before(key);
    if (name === key) continue;
    const get = () => {
      tell(name);
      return (made as Named)[key];
    };
    Object.defineProperty(made, name, { get, enumerable: false, configurable: true });
  }
  return made;
}

const renamed = (object: object, name: (key: string) => string): Named => Object.fromEntries(Object.entries(object).map(([key, value]) => [name(key), value as unknown]));

/** Settings for the crate. */
export function toCrate(settings: object): C.Settings {
  for (const key of Object.keys(settings)) if (key.includes("-")) tell(key);
  return renamed(settings, dashed);
}

/** Settings for a page. */
export const fromCrate = (settings: C.Settings): P.Settings => withBefore(renamed(settings, camel), dashed) as P.Settings;

/** The scheduler's settings, of which one is a table of its own. */
export function schedulerToCrate(scheduler: object): C.Settings {
  const made = toCrate(scheduler);
  const early = made["early-stop"];
  return typeof early === "object" && early !== null && !Array.isArray(early) ? { ...made, "early-stop": toCrate(early) } : made;
}

/** An event for a page. Names that users gave (of tasks, of jobs) stay as they are. */
export function eventFromCrate<E extends P.JobsEvent>(event: C.JobsEvent): E {
  const made = renamed(event, camel);
  if (made["config"]) made["config"] = fromCrate(made["config"] as C.Settings);
  if (made["router"]) made["router"] = withBefore(renamed(made["router"] as object, camel), underscored);
  return withBefore(made, underscored) as E;
}

/** A row of the table of settings for a page. */
export const settingFromCrate = (setting: C.Setting): P.Setting => ({ ...setting, key: camel(setting.key), name: setting.key });

/** What a saved run was begun with, for a page. */
export const savedFromCrate = <T extends { settings: C.Settings }>(saved: T): Omit<T, "settings"> & { settings: P.Settings } => ({ ...saved, settings: fromCrate(saved.settings) });

/** A job for the crate. */
export const jobToCrate = (job: P.JobOptions): C.JobOptions => ({ ...job, settings: toCrate(job.settings) });

/** A sweep for the crate. */
export const sweepToCrate = ({ keys, list, ...sweep }: P.Sweep): C.Sweep => ({ ...sweep, ...(keys ? { keys: toCrate(keys) } : {}), ...(list ? { list: list.map(toCrate) } : {}) });

/** A job of a sweep for a page. */
export const trialFromCrate = ({ name, assigned }: C.Trial): P.Trial => ({ name, assigned: fromCrate(assigned) });

/** Tables of the scheduler for a page. */
export function tablesFromCrate(tables: P.JobTables): P.JobTables {
  const rows = (all: P.TableRow[]) => all.map((row) => ({ ...row, keys: row.keys.map(camel) }));
  return { policies: rows(tables.policies), rules: rows(tables.rules), searches: rows(tables.searches) };
}
