/** Looking inside an adapter: figures and pictures of what it changes. */

import type { Analysis } from "weblora";
import { announce } from "../lib/announce";
import { problem, type Problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { get } from "../state";
import { trainer } from "../trainer";
import { chosenAdapter } from "./trial";

/** What came of it. */
export type Inside = { analysis: Analysis } | { problem: Problem };

/** Analyses the adapter that is chosen under "Try it"; `null` when there is none. */
export async function analyzeChosen(): Promise<Inside | null> {
  const adapter = chosenAdapter();
  if (adapter === null || adapter === "none") return null;
  try {
    const made = await trainer();
    // Of the run that the Worker holds it also knows the modules, which files do not have apart.
    const held = get().trial.adapter === get().runs.held;
    const analysis = await exclusive(() => made.analyze(held ? "current" : adapter));
    announce(`${analysis.report.sites.length} layers analysed.`);
    return { analysis };
  } catch (error) {
    return { problem: problem(error) };
  }
}
