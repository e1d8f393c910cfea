/** The shelf: runs that this browser keeps, opened again with all that is known of them. */

import type { Autosave } from "weblora";
import { asForm } from "../lib/settings";
import { announce } from "../lib/announce";
import { fileName, save } from "../lib/download";
import { pack } from "../lib/archive";
import { dropCurves } from "../lib/history";
import { PageError } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { get, isTraining, update } from "../state";
import { report, trainer } from "../trainer";
import { loadBase, refreshStorage } from "./base";
import { takeSettings } from "./form";
import { newRun } from "./newrun";
import { restoreRows } from "./rows";

/** Puts a finished run back on the page, with its base, rows and settings. */
export async function openKept({ key, step, total, state, settings }: Autosave): Promise<void> {
  if (isTraining()) return void report(new PageError("busy", "A run is under way; stop it before opening another."));
  try {
    const made = await trainer();
    const { base, baseName, contentHash, rows, heldOut, adapter, best, job } = await exclusive(() => made.restore(key));
    const { info } = get().base;
    if (info?.contentHash !== contentHash) {
      if (!base) throw new PageError("data", `The base ${baseName} was a file; load it first.`);
      if ((await loadBase(base))?.contentHash !== contentHash) throw new PageError("adapter", `The base ${baseName} is not what it was; load the file that the run was made on.`);
    }
    const name = [rows].flat().map((set) => ("embedded" in set ? "swap" : (set.name ?? "saved rows"))).join(" + ");
    const run = newRun(asForm(settings), { train: rows, heldOut: heldOut ?? null, name }, key);
    if (job) run.name = job.name;
    else run.name = run.name.replace(/ · .*/, ` · ${String(settings["method"] ?? "lora")} r${String(settings["rank"] ?? 8)}`);
    Object.assign(run, { state: state === "open" ? "stopped" : state, step, total, savedStep: step, adapter: adapter ?? null, best: best?.files ?? null, bestStep: best?.step ?? null });
    update("runs", { list: [...get().runs.list, run], selected: run.id });
    if (run.adapter) update("trial", { adapter: run.id });
    await restoreRows(rows, heldOut ?? null);
    await takeSettings(asForm(settings));
    announce(`Run ${run.name} is open.`);
  } catch (error) {
    report(error);
  }
}

/** Saves the adapter of a kept run, without a base. */
export async function saveKept({ key, base, settings, step }: Autosave): Promise<void> {
  try {
    const made = await trainer();
    const { adapter, best } = await exclusive(() => made.restore(key));
    const files = adapter ?? best?.files;
    if (!files) throw new PageError("adapter", "This run has no adapter yet; resume it first.");
    save(`${fileName(`${base}-${String(settings["method"] ?? "lora")}-step${step}`)}-adapter.zip`, await pack(files), "application/zip");
    announce("The adapter was saved.");
  } catch (error) {
    report(error);
  }
}

/** Forgets a kept run. */
export async function removeKept({ key }: Autosave): Promise<void> {
  try {
    const made = await trainer();
    await exclusive(() => made.discard(key));
    dropCurves(key);
    announce("The run was deleted.");
  } catch (error) {
    report(error);
  }
  await refreshStorage();
}
