/** Choosing rows and looking at them as the model will. */

import type { Rows } from "weblora";
import { ROW_SETS } from "../data/rowsets";
import { problem } from "../lib/problem";
import { newest } from "../lib/queue";
import { rowsText, toJsonLines } from "../lib/sniff";
import { get, isTraining, runSettings, update } from "../state";
import { trainer } from "../trainer";
import { replan } from "./plan";

/** Rows that are shown as tokens. */
export const PREVIEW_ROWS = 20;

/** Rows whose prompts are offered for trying. */
const SAMPLES = 3;

const latest = newest<void>();

/** Takes one of the sets that come with the page. */
export async function chooseSet(id: string): Promise<void> {
  const set = ROW_SETS.find((each) => each.id === id);
  if (!set) return;
  update("rows", { choice: id, status: "loading", problem: null });
  try {
    const [train, heldOut] = await Promise.all([set.train(), set.heldOut()]);
    if (get().rows.choice === id) await take(train, heldOut, set.id, heldOut ? `${set.id}, held out` : "");
  } catch (error) {
    update("rows", { status: "failed", problem: problem(error), train: null, heldOut: null, preview: [] });
  }
}

/** Reads rows from a file: JSON lines, a JSON array, or plain text. */
export async function rowsFromFile(file: File): Promise<void> {
  update("rows", { choice: "file", status: "loading", problem: null });
  try {
    await take({ text: await rowsText(file), name: file.name }, get().rows.heldOut, file.name, get().rows.heldOutName);
  } catch (error) {
    update("rows", { status: "failed", problem: problem(error), train: null, preview: [], total: 0 });
  }
}

/** Takes rows that were pasted or typed. */
export async function rowsFromText(text: string): Promise<void> {
  update("rows", { choice: "paste", problem: null });
  if (text.trim() === "") {
    update("rows", { status: "idle", train: null, preview: [], total: 0, warnings: [] });
    return replan();
  }
  try {
    await take({ text: toJsonLines(text, "the pasted rows"), name: "pasted rows" }, get().rows.heldOut, "pasted rows", get().rows.heldOutName);
  } catch (error) {
    update("rows", { status: "failed", problem: problem(error), train: null, preview: [], total: 0 });
  }
}

/** Takes a file of rows that are only evaluated on; `null` for none. */
export async function heldOutFromFile(file: File | null): Promise<void> {
  try {
    const heldOut = file ? { text: await rowsText(file), name: file.name } : null;
    update("rows", { heldOut, heldOutName: file?.name ?? "", problem: null });
    await refreshPreview();
    replan();
  } catch (error) {
    update("rows", { problem: problem(error) });
  }
}

/** Shows the upload or paste form without rows in it yet. */
export function beginChoice(choice: "file" | "paste"): void {
  update("rows", { choice, status: "idle", train: null, heldOut: null, trainName: "", heldOutName: "", preview: [], total: 0, warnings: [], problem: null });
  replan();
}

/** Puts rows back as a saved run had them. */
export async function restoreRows(train: Rows, heldOut: Rows | null): Promise<void> {
  const choice = "embedded" in train ? "swap" : "file";
  const name = "embedded" in train ? "swap" : (train.name ?? "saved rows");
  update("rows", { choice });
  await take(train, heldOut, name, heldOut ? ("embedded" in heldOut ? "swap, held out" : (heldOut.name ?? "saved rows")) : "");
}

async function take(train: Rows, heldOut: Rows | null, trainName: string, heldOutName: string): Promise<void> {
  update("rows", { train, heldOut, trainName, heldOutName, preview: [], total: 0, warnings: [] });
  await refreshPreview();
  replan();
}

/** Renders the first rows again: after new rows, another base, or a setting that changes how rows are read. */
export async function refreshPreview(): Promise<void> {
  const { train } = get().rows;
  if (!train || get().base.status !== "ready" || isTraining()) {
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
      update("rows", { status: "ready", preview: rows, samples, total, warnings, problem: null });
    } catch (error) {
      const found = problem(error);
      // A wrong setting is shown at its field by the plan; the rows themselves are fine.
      if (found.code === "config") update("rows", { status: "ready", preview: [], warnings: [] });
      else update("rows", { status: "failed", preview: [], warnings: [], problem: found });
    }
  });
}
