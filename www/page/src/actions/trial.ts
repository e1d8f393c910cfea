/** Trying an adapter: one prompt answered twice, and rows scored twice. */

import type { AdapterChoice, AdapterFile, ChatMessage, Rows, Written } from "weblora";
import { announce } from "../lib/announce";
import { loss } from "../lib/format";
import { isAbort, problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { activeRun, get, isJobUnderWay, noAnswer, touch, update, type Answer, type Run } from "../state";
import { trainer } from "../trainer";
import { jobAdapter } from "./jobs";

/** How answers are drawn. */
export interface Drawing {
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number;
}

let abort: AbortController | null = null;

/** The adapters that can be tried: of the runs, and the one that was brought in or made. One in training has no files yet. */
export function knownAdapters(): { id: string; name: string; files: AdapterFile[] | null }[] {
  const { runs, trial } = get();
  const trains = (run: Run) => run.id === runs.active || isJobUnderWay(run);
  const usable = runs.list.filter((run) => run.adapter || (trains(run) && run.step > 0));
  const known = usable.flatMap((run) => {
    const own = { id: run.id, name: run.adapter ? run.name : `${run.name}, in training`, files: run.adapter };
    return run.best ? [own, { id: `${run.id}:best`, name: `${run.name}, best (step ${run.bestStep ?? 0})`, files: run.best }] : [own];
  });
  return trial.imported ? [...known, { id: "imported", ...trial.imported }] : known;
}

/** Offers an adapter to try and to start from, in the place of the one that was offered before. */
export function offerAdapter(name: string, files: AdapterFile[]): void {
  const imported = { name, files };
  if (get().form.init !== null) update("form", { init: imported });
  update("trial", { imported, adapter: "imported", scores: null });
}

/** The adapter that is compared with the base: files, the one in training, or `null` when there is none. */
export function chosenAdapter(): AdapterChoice | null {
  const { trial, runs } = get();
  if (trial.adapter === "imported") return trial.imported?.files ?? null;
  const best = runs.list.find(({ id }) => `${id}:best` === trial.adapter);
  if (best) return best.best;
  const run = runs.list.find(({ id }) => id === trial.adapter);
  if (run?.adapter) return run.adapter;
  return run && (run === activeRun() || isJobUnderWay(run)) && run.step > 0 ? "current" : null;
}

/** The same as the Worker takes it: of a job in training, its files as they are now. */
export async function resolvedAdapter(): Promise<AdapterChoice | null> {
  const adapter = chosenAdapter();
  const run = adapter === "current" && get().runs.list.find(({ id }) => id === get().trial.adapter);
  return run && run.job ? jobAdapter(run) : adapter;
}

/** Lets base and adapter answer, one after the other: they share one GPU. A run that trains waits meanwhile. */
export async function compare(prompt: string | ChatMessage[], drawing: Drawing): Promise<void> {
  if (get().trial.busy || ["starting", "stopping"].includes(activeRun()?.state ?? "")) return;
  const adapter = await resolvedAdapter();
  abort = new AbortController();
  const sides: ["base" | "tuned", AdapterChoice][] = adapter === null ? [["base", "none"]] : [["base", "none"], ["tuned", adapter]];
  update("trial", { busy: true, problem: null, base: { ...noAnswer(), status: "waiting" }, tuned: adapter === null ? noAnswer() : { ...noAnswer(), status: "waiting" } });
  for (const [side, choice] of sides) {
    const answer = get().trial[side] as Answer;
    await exclusive(() => write(answer, prompt, choice, drawing));
    if (answer.status === "failed") break;
  }
  const { base, tuned } = get().trial;
  update("trial", { busy: false });
  if (base.status === "done") announce(`Base: ${base.text.trim()}.${tuned.status === "done" ? ` Adapter: ${tuned.text.trim()}.` : ""}`);
}

async function write(answer: Answer, prompt: string | ChatMessage[], adapter: AdapterChoice, drawing: Drawing): Promise<void> {
  const signal = abort?.signal;
  if (!signal || signal.aborted) {
    answer.status = "stopped";
    return touch("trial");
  }
  const begun = performance.now();
  try {
    const made = await trainer();
    const chatTemplate = get().form.changed["chatTemplate"];
    const template = typeof chatTemplate === "string" ? { chatTemplate } : {};
    const onEnd = ({ tokens, stopped }: Written) => (answer.written = { tokens, stopped });
    for await (const piece of made.generate(prompt, { ...drawing, ...template, adapter, signal, onEnd })) {
      answer.status = "writing";
      answer.text += piece;
      answer.pieces += 1;
      answer.seconds = (performance.now() - begun) / 1000;
      touch("trial");
    }
    answer.status = signal.aborted ? "stopped" : "done";
  } catch (error) {
    answer.status = isAbort(error) ? "stopped" : "failed";
    if (answer.status === "failed") answer.problem = problem(error);
  }
  answer.seconds = (performance.now() - begun) / 1000;
  touch("trial");
}

/** Ends both answers. */
export function stopCompare(): void {
  abort?.abort();
}

/** Measures the loss of held-out rows without and with the adapter. */
export async function score(rows: Rows, name: string): Promise<void> {
  const adapter = await resolvedAdapter();
  if (get().trial.busy || adapter === null) return;
  update("trial", { busy: true, scoring: true, scores: null, problem: null });
  try {
    const made = await trainer();
    const [base, tuned] = await exclusive(async () => {
      const before = await made.evaluate(rows, { adapter: "none" });
      return [before, await made.evaluate(rows, { adapter })] as const;
    });
    update("trial", { scores: { base: base.loss, tuned: tuned.loss, tokens: tuned.tokens, name } });
    announce(`Loss of ${name}: base ${loss(base.loss)}, with adapter ${loss(tuned.loss)}.`);
  } catch (error) {
    update("trial", { problem: problem(error) });
  } finally {
    update("trial", { busy: false, scoring: false });
  }
}
