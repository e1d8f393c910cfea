/** The settings form: its table comes from the crate, its values are only what the user changed. */

import { asForm, type FormSettings } from "../lib/settings";
import { RECIPES } from "../data/recipes";
import { announce } from "../lib/announce";
import { readRunFile } from "../lib/runfile";
import { exclusive } from "../lib/queue";
import { get, update } from "../state";
import { report, trainer } from "../trainer";
import { replan } from "./plan";
import { refreshPreview } from "./rows";

/** FormSettings that change how rows become tokens. */
const READ_BY_PREVIEW = ["seq", "format", "chatTemplate", "date", "keepReasoning", "parseSpecial", "trainOnPrompt", "overlong"];

/** Keys that name files or folders; the page has other ways to choose those. */
const NOT_IN_FORM = ["model", "data", "evalData", "initAdapter", "out", "name", "method", "quantize"];

/** The change of method that is under way: its table comes from the Worker, after whatever that is busy with. */
let changing: Promise<void> = Promise.resolve();

/** Resolves when the form says what was last chosen in it. */
export const formSettled = (): Promise<void> => changing;

/** Fetches the table of a method's settings. */
export async function loadTable(method: string): Promise<void> {
  try {
    const made = await trainer();
    const [table, methods] = await exclusive(async () => [await made.settings(method), await made.methods()] as const);
    update("form", { method, table, methods });
  } catch (error) {
    report(error);
  }
}

/** The rows of the table that are shown. */
export const visibleSettings = () => get().form.table.filter(({ key }) => !NOT_IN_FORM.includes(key));

/** Changes the method; settings that only the old one had are dropped. */
export function setMethod(method: string): Promise<void> {
  changing = changing.then(() => changeMethod(method));
  return changing;
}

async function changeMethod(method: string): Promise<void> {
  await loadTable(method);
  const known = new Set(get().form.table.map(({ key }) => key));
  const changed = Object.fromEntries(Object.entries(get().form.changed).filter(([key]) => known.has(key)));
  update("form", { changed, recipe: "custom" });
  replan();
}

/** Changes one setting; `undefined` takes it back to its default. */
export function setSetting(key: string, value: unknown): void {
  const changed: FormSettings = { ...get().form.changed };
  if (value === undefined) delete changed[key];
  else changed[key] = value;
  // The two say the same thing in two ways.
  if (value !== undefined && key === "steps") delete changed["epochs"];
  if (value !== undefined && key === "epochs") delete changed["steps"];
  update("form", { changed, recipe: "custom" });
  if (READ_BY_PREVIEW.includes(key)) void refreshPreview();
  replan();
}

/** Starts from a recipe; what was changed before is forgotten. */
export async function applyRecipe(id: string): Promise<void> {
  const recipe = RECIPES.find((each) => each.id === id);
  if (!recipe) return;
  const { method, ...settings } = onlyInForm(recipe.settings === "demo" ? await demoSettings() : recipe.settings);
  if (typeof method === "string" && method !== get().form.method) await loadTable(method);
  update("form", { recipe: id, changed: settings });
  fitContext();
  void refreshPreview();
  replan();
}

/** Rows as long as the model can read, where a preset or the default is longer: never a plan that is refused for it. */
export function fitContext(): void {
  const { changed, table } = get().form;
  const context = get().base.info?.context;
  const seq = Number(changed["seq"] ?? table.find(({ key }) => key === "seq")?.default ?? 0);
  if (context !== undefined && seq > context) update("form", { changed: { ...changed, seq: context } });
}

/** Takes all settings from somewhere else: a run file, a checkpoint, a saved run. */
export async function takeSettings(settings: FormSettings): Promise<void> {
  const { method, ...changed } = onlyInForm(settings);
  if (typeof method === "string" && method !== get().form.method) await loadTable(method);
  update("form", { changed: withoutDefaults(changed), recipe: "custom" });
  await refreshPreview();
  replan();
}

/** Takes the settings of a run file. */
export async function importRunFile(file: File): Promise<void> {
  await takeSettings(readRunFile(await file.text(), file.name));
  announce(`FormSettings taken from ${file.name}.`);
}

/** How the crate itself runs its demo. */
async function demoSettings(): Promise<FormSettings> {
  const made = await trainer();
  return asForm(await exclusive(() => made.demoSettings()));
}

function onlyInForm(settings: FormSettings): FormSettings {
  const fits = (key: string, value: unknown) => key === "method" || (!NOT_IN_FORM.includes(key) && value !== null);
  return Object.fromEntries(Object.entries(settings).filter(([key, value]) => fits(key, value)));
}

function withoutDefaults(settings: FormSettings): FormSettings {
  const same = (key: string, value: unknown) => {
    const row = get().form.table.find((each) => each.key === key);
    return row !== undefined && JSON.stringify(row.default) === JSON.stringify(value);
  };
  return Object.fromEntries(Object.entries(settings).filter(([key, value]) => !same(key, value)));
}
