/** Loading a base model, and the copies that the browser keeps. */

import type { BaseInfo, BaseSource } from "weblora";
import { announce } from "../lib/announce";
import { bytes, parameters } from "../lib/format";
import { isAbort, problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { get, hasOwnRows, isTraining, update } from "../state";
import { report, trainer } from "../trainer";
import { applyRecipe, fitContext, loadTable } from "./form";
import { chooseSet, rereadRows } from "./rows";
import { replan } from "./plan";

let loading: AbortController | null = null;

/** Loads a base and prepares the form for it. Resolves to what was loaded, or `null` when that failed or was cancelled. */
export async function loadBase(source: BaseSource, tokenizer?: File): Promise<BaseInfo | null> {
  if (isTraining()) return null;
  loading?.abort();
  const abort = new AbortController();
  loading = abort;
  update("base", { status: "loading", source, info: null, progress: null, problem: null });
  update("plan", { status: "idle", plan: null, problem: null, stepSeconds: null });
  try {
    const made = await trainer();
    const info = await exclusive(() =>
      made.loadBase(source, {
        signal: abort.signal,
        ...(tokenizer ? { tokenizer } : {}),
        onProgress: (progress) => {
          if (loading === abort) update("base", { progress });
        },
      }),
    );
    if (loading !== abort) return null;
    update("base", { status: "ready", info, progress: null });
    update("runs", { held: null });
    announce(`${info.name} is loaded: ${parameters(info.parameters)} parameters, ${bytes(info.bytes)}.`);
    await prepareForm(source);
    void refreshStorage();
    return info;
  } catch (error) {
    if (loading !== abort) return null;
    const cancelled = isAbort(error) || abort.signal.aborted;
    update("base", { status: cancelled ? "none" : "failed", progress: null, problem: cancelled ? null : problem(error) });
    if (cancelled) announce("Loading was cancelled.");
    return null;
  } finally {
    if (loading === abort) loading = null;
  }
}

/** Opens the models that can be downloaded. */
export function showDownloads(): void {
  update("base", { tab: "url" });
  const section = document.querySelector<HTMLElement>(".setup .section");
  section?.scrollIntoView({ behavior: "smooth", block: "start" });
  section?.querySelector<HTMLElement>("h2")?.focus({ preventScroll: true });
}

/** Ends a load. What was downloaded so far is thrown away. */
export function cancelLoad(): void {
  loading?.abort();
}

/** Settings first, then the fields that show them: whoever types at once must not be overwritten. */
async function prepareForm(source: BaseSource): Promise<void> {
  const { recipe, changed } = get().form;
  const embedded = "embedded" in source;
  const untouched = recipe === "defaults" && Object.keys(changed).length === 0;
  const suited = embedded ? (hasOwnRows() ? "few" : "demo") : "balanced";
  if (untouched || (["demo", "few"].includes(recipe) && !embedded)) await applyRecipe(suited);
  await loadTable(get().form.method);
  fitContext();
  if (get().rows.choice === "" && embedded) await chooseSet("swap");
  else await rereadRows();
  replan();
}

/** Reads again what this browser keeps: models and saved runs. */
export async function refreshStorage(): Promise<void> {
  if (get().device.status === "missing") return;
  try {
    const made = await trainer();
    const [cached, saves] = await exclusive(async () => [await made.cache.list(), await made.autosaves()] as const);
    const estimate = await navigator.storage?.estimate?.().catch(() => null);
    update("storage", { cached, saves, usage: estimate?.usage ?? 0, quota: estimate?.quota ?? 0, problem: null });
  } catch (error) {
    // Private windows deny storage: everything but keeping things still works.
    update("storage", { cached: [], saves: [], problem: problem(error) });
  }
}

/** Removes a kept model. */
export async function removeCached(key: string, name: string): Promise<void> {
  try {
    const made = await trainer();
    await exclusive(() => made.cache.remove(key));
    announce(`${name} was removed from this browser.`);
  } catch (error) {
    report(error);
  }
  await refreshStorage();
}
