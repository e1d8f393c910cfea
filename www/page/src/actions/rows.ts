/** Choosing rows and looking at them as the model will. */

import type { RowPreview, Rows } from "weblora";
import { RECIPES } from "../data/recipes";
import { ROW_SETS } from "../data/rowsets";
import { inWords, problem } from "../lib/problem";
import { newest } from "../lib/queue";
import { linesOf, pairsIn, type Pair } from "../lib/pairs";
import { rowsText, toJsonLines } from "../lib/sniff";
import { guessColumns, pairsOf, readTable, tableIn } from "../lib/table";
import { get, hasOwnRows, isBuiltIn, isLocked, runSettings, update, type RowsState } from "../state";
import { trainer } from "../trainer";
import { replan } from "./plan";

/** Rows that are shown as tokens. */
export const PREVIEW_ROWS = 20;

/** Rows whose prompts are offered for trying. */
const SAMPLES = 3;

const latest = newest<void>();

/** The questions and answers that the rows were made of, where they were: another base may want them as conversations. */
let madeOf: Pair[] | null = null;

/** Takes one of the sets that come with the page. */
export async function chooseSet(id: string): Promise<void> {
  const set = ROW_SETS.find((each) => each.id === id);
  if (!set) return;
  update("rows", { choice: id, status: "loading", problem: null, heldOutChosen: false, table: null });
  try {
    const [train, heldOut] = await Promise.all([set.train(), set.heldOut()]);
    const own = set.settings;
    const { form } = get();
    // Over a preset, not over what somebody has typed.
    if (own && form.recipe !== "custom" && isBuiltIn()) {
      const { epochs: _, ...rest } = form.changed;
      update("form", { changed: { ...rest, ...own } });
    }
    if (get().rows.choice === id) await take(train, heldOut, set.id, heldOut ? `${set.id}, held out` : "");
  } catch (error) {
    update("rows", { status: "failed", problem: problem(error), train: null, heldOut: null, preview: [] });
  }
}

/** Reads rows from a file: JSON lines, a JSON array, or plain text. */
export async function rowsFromFile(file: File): Promise<void> {
  const { choice, train } = get().rows;
  update("rows", { choice: "file", status: "loading", problem: null, ...(choice === "file" ? {} : { train: null, heldOutChosen: false }) });
  const first = choice !== "file" || train === null;
  try {
    const text = await rowsText(file, chats());
    const kept = chosenHeldOut(first);
    const table = await tableIn(file);
    if (table) {
      update("rows", { heldOut: kept.rows, heldOutName: kept.name });
      return await mapColumns({ name: file.name, cells: table.cells, ...guessColumns(table) });
    }
    update("rows", { table: null });
    await take({ text, name: file.name }, kept.rows, file.name, kept.name);
  } catch (error) {
    update("rows", { status: "failed", problem: problem(error), train: null, preview: [], total: 0 });
  }
}

/** Makes rows of two columns of a table. */
export async function mapColumns(table: NonNullable<RowsState["table"]>): Promise<void> {
  update("rows", { table });
  const { heldOut, heldOutName } = get().rows;
  await takePairs(pairsOf(table, table), table.name, heldOut, heldOutName);
}

/** Takes questions and answers that were typed. */
export async function rowsFromPairs(pairs: Pair[]): Promise<void> {
  update("rows", { problem: null });
  if (linesOf(pairs, false) === "") return noRows();
  const kept = chosenHeldOut(true);
  await takePairs(pairs, "what you teach", kept.rows, kept.name);
}

async function takePairs(pairs: Pair[], name: string, heldOut: Rows | null, heldOutName: string): Promise<void> {
  const taken = take({ text: linesOf(pairs, chats()), name }, heldOut, name, heldOutName);
  madeOf = pairs;
  await taken;
}

/** Reads the rows as the base that was just loaded does. */
export async function rereadRows(): Promise<void> {
  const { heldOut, heldOutName, trainName } = get().rows;
  if (madeOf !== null && hasOwnRows()) await takePairs(madeOf, trainName, heldOut, heldOutName);
  else await refreshPreview();
}

/** Whether rows are written as conversations: for a model that has a template for them. The built-in one is too small to chat. */
const chats = (): boolean => get().base.info?.chatTemplate === true && !isBuiltIn();

/** Rows that the form opens at most; more of them are easier to change as text. */
const MOST_PAIRS = 40;

/** Opens the rows to change them: as questions and answers where they are such, else as text. */
export function editRows(): { pairs: Pair[] } | { text: string } {
  const { train } = get().rows;
  const text = train && "text" in train ? train.text : "";
  const pairs = pairsIn(text);
  const form = pairs !== null && pairs.length <= MOST_PAIRS;
  update("rows", { choice: form ? "teach" : "paste", table: null });
  return form ? { pairs } : { text };
}

function noRows(): void {
  update("rows", { status: "idle", train: null, preview: [], samples: [], total: 0, warnings: [], foreign: false });
  replan();
}

/** Takes rows that were pasted or typed. */
export async function rowsFromText(text: string): Promise<void> {
  const same = get().rows.choice === "paste";
  update("rows", { choice: "paste", problem: null });
  if (text.trim() === "") {
    return noRows();
  }
  try {
    const table = /^\s*[{[]/.test(text) ? null : pastedTable(text);
    const kept = chosenHeldOut(same);
    if (table) await takePairs(table, "pasted rows", kept.rows, kept.name);
    else await take({ text: toJsonLines(text, "the pasted rows", chats()), name: "pasted rows" }, kept.rows, "pasted rows", kept.name);
  } catch (error) {
    update("rows", { status: "failed", problem: problem(error), train: null, preview: [], total: 0 });
  }
}

/** Two columns out of a spreadsheet: every line has the same number of tabs. */
function pastedTable(text: string): Pair[] | null {
  const lines = text.trim().split("\n");
  const tabs = (line: string) => line.split("\t").length - 1;
  if (tabs(lines[0] ?? "") === 0 || lines.some((line) => tabs(line) !== tabs(lines[0] ?? ""))) return null;
  const table = readTable(text);
  if (!table) return null;
  return pairsOf(table, guessColumns(table));
}

/** The held-out rows that stay with new rows: those that were chosen by hand for them. Those of another set would measure another task. */
function chosenHeldOut(same: boolean): { rows: Rows | null; name: string } {
  const { heldOut, heldOutName, heldOutChosen } = get().rows;
  return same && heldOutChosen ? { rows: heldOut, name: heldOutName } : { rows: null, name: "" };
}

/** Takes a file of rows that are only evaluated on; `null` for none. */
export async function heldOutFromFile(file: File | null): Promise<void> {
  try {
    const table = file && (await tableIn(file));
    const own = get().rows.table;
    // The columns that were chosen for the rows, where both tables begin alike.
    const columns = table && (own && String(own.cells[0]) === String(table.cells[0]) ? own : guessColumns(table));
    const text = file && (table && columns ? linesOf(pairsOf(table, columns), chats()) : await rowsText(file, chats()));
    const heldOut = file && text !== null ? { text, name: file.name } : null;
    update("rows", { heldOut, heldOutName: file?.name ?? "", heldOutChosen: file !== null, problem: null });
    await refreshPreview();
    replan();
  } catch (error) {
    update("rows", { problem: problem(error) });
  }
}

/** Shows the upload or paste form without rows in it yet. */
export function beginChoice(choice: "file" | "paste" | "teach"): void {
  update("rows", { choice, status: "idle", train: null, heldOut: null, trainName: "", heldOutName: "", heldOutChosen: false, table: null, samples: [], preview: [], total: 0, warnings: [], foreign: false, problem: null });
  replan();
}

/** Keeps the set that is there as part of a mixture, and begins with another. */
export function mixCurrent(choice: "file" | "paste" | "teach"): void {
  const { mixed, train, heldOut, trainName } = get().rows;
  if (train === null) return;
  update("rows", { mixed: [...mixed, { train, heldOut, name: trainName }] });
  reshare();
  beginChoice(choice);
}

/** Takes a set out of the mixture. */
export function unmix(at: number): void {
  update("rows", { mixed: get().rows.mixed.filter((_, i) => i !== at) });
  reshare();
  replan();
}

/** Takes all sets out of the mixture. */
export function unmixAll(): void {
  if (get().rows.mixed.length > 0) update("rows", { mixed: [] });
  reshare();
}

/** Shares are of the sets that were there. */
function reshare(): void {
  const { dataWeights: shares, ...changed } = get().form.changed;
  if (shares !== undefined) update("form", { changed });
}

/** Puts rows back as a saved run had them. */
export async function restoreRows(saved: Rows | Rows[], savedHeldOut: Rows | Rows[] | null): Promise<void> {
  const [sets, kept] = [[saved].flat(), [savedHeldOut ?? []].flat()];
  const nameOf = (rows: Rows) => ("embedded" in rows ? "swap" : (rows.name ?? "saved rows"));
  const mixed = sets.slice(0, -1).map((train, i) => ({ train, heldOut: kept[i] ?? null, name: nameOf(train) }));
  update("rows", { mixed });
  const [train, heldOut] = [sets.at(-1), kept[sets.length - 1] ?? null];
  if (train) await restoreOne(train, heldOut);
}

async function restoreOne(train: Rows, heldOut: Rows | null): Promise<void> {
  const choice = "embedded" in train ? "swap" : "file";
  const name = "embedded" in train ? "swap" : (train.name ?? "saved rows");
  update("rows", { choice });
  await take(train, heldOut, name, heldOut ? ("embedded" in heldOut ? "swap, held out" : (heldOut.name ?? "saved rows")) : "");
}

async function take(train: Rows, heldOut: Rows | null, trainName: string, heldOutName: string): Promise<void> {
  madeOf = null;
  const heldOutChosen = get().rows.heldOutChosen && heldOut !== null;
  const { base, form } = get();
  // The demo's settings are for its own short rows.
  const few = "text" in train && isBuiltIn() && form.recipe === "demo" ? RECIPES.find(({ id }) => id === "few") : undefined;
  if (few && typeof few.settings === "object" && ["file", "paste", "teach"].includes(get().rows.choice)) {
    update("form", { recipe: few.id, changed: { ...few.settings, seq: base.info?.context } });
  }
  update("rows", { train, heldOut, trainName, heldOutName, heldOutChosen, samples: [], preview: [], total: 0, warnings: [], foreign: false });
  await refreshPreview();
  replan();
}

/** Single letters among the tokens of rows whose words a model does not know. */
const FOREIGN_SHARE = 0.2;

function areSpelt(rows: RowPreview[]): boolean {
  const tokens = rows.flatMap((row) => row.tokens);
  return tokens.filter(({ text }) => /^\p{L}$/u.test(text)).length > FOREIGN_SHARE * tokens.length;
}

/** Renders the first rows again: after new rows, another base, or a setting that changes how rows are read. */
export async function refreshPreview(): Promise<void> {
  const { train } = get().rows;
  if (!train || get().base.status !== "ready" || isLocked()) {
    if (train) update("rows", { status: "ready" });
    return;
  }
  update("rows", { status: "loading" });
  await latest(async () => {
    try {
      const made = await trainer();
      const { rows, total, warnings } = await made.preview(train, runSettings(), PREVIEW_ROWS);
      const { heldOut } = get().rows;
      const samples = heldOut ? (await made.preview(heldOut, runSettings(), SAMPLES)).rows : rows.slice(0, SAMPLES);
      update("rows", { status: "ready", preview: rows, samples, total, warnings: warnings.map((text) => inWords(text)), foreign: isBuiltIn() && areSpelt(rows), problem: null });
    } catch (error) {
      const found = problem(error);
      // A wrong setting is shown at its field by the plan; the rows themselves are fine.
      if (found.code === "config") update("rows", { status: "ready", preview: [], warnings: [], foreign: false });
      else update("rows", { status: "failed", preview: [], warnings: [], foreign: false, problem: found });
    }
  });
}
