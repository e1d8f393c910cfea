/** What a model finds in long texts. */

import type { Retrieval, RetrievalTask } from "weblora";
import { announce } from "../lib/announce";
import { isAbort, problem, type Problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { get, update } from "../state";
import { trainer } from "../trainer";
import { chosenAdapter, resolved } from "./trial";

/** What came of it. */
export type Found = { retrieval: Retrieval } | { problem: Problem } | { stopped: true };

let abort: AbortController | null = null;

/** Asks the adapter that is chosen under "Try it", or the base where there is none. `onCell` is told how many of all lengths and depths are done. */
export async function retrieve(task: RetrievalTask, lengths: number[], onCell: (done: number, total: number) => void): Promise<Found | null> {
  if (get().trial.busy) return null;
  const depths = [0, 0.25, 0.5, 0.75, 1];
  const adapter = (await resolved(chosenAdapter())) ?? "none";
  abort = new AbortController();
  const { signal } = abort;
  let done = 0;
  update("trial", { busy: true, scoring: true });
  try {
    const made = await trainer();
    const told = () => onCell((done += 1), lengths.length * depths.length);
    const retrieval = await exclusive(() => made.retrieve({ task, lengths, depths, adapter, signal, onCell: told }));
    announce(`${Math.round(100 * retrieval.share)} % found.`);
    return { retrieval };
  } catch (error) {
    return isAbort(error) ? { stopped: true } : { problem: problem(error) };
  } finally {
    update("trial", { busy: false, scoring: false });
  }
}

/** Ends it after the question that is being answered. */
export function stopRetrieval(): void {
  abort?.abort();
}
