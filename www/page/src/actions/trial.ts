/** Trying an adapter: one prompt, or a conversation, answered twice. */

import type { AdapterChoice, AdapterFile, ChatMessage, Written } from "weblora";
import { announce } from "../lib/announce";
import { isAbort, problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { activeRun, get, isJobUnderWay, noAnswer, touch, update, type Answer, type Run, type Turn } from "../state";
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

/** The signal of what is asked next; {@link stopCompare} ends it. */
export function newSignal(): AbortSignal {
  abort = new AbortController();
  return abort.signal;
}

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
export async function resolved(adapter: AdapterChoice | null): Promise<AdapterChoice | null> {
  const run = adapter === "current" && get().runs.list.find(({ id }) => id === get().trial.adapter);
  return run && run.job ? jobAdapter(run) : adapter;
}

/** What is asked: a text that goes on, or the next words of a conversation. */
export type Asked = { text: string } | { say: string; system: string };

/** The turns so far of the conversation with this base and adapter; with others it begins anew. */
function turnsSoFar(partner: string): Turn[] {
  const { trial } = get();
  if (trial.partner !== partner || trial.said === "") return [];
  const answered = trial.base.text !== "" && trial.base.status !== "failed" && trial.tuned.status !== "failed";
  return answered ? [...trial.turns, { said: trial.said, base: trial.base.text, tuned: trial.tuned.text }] : trial.turns;
}

/** Each side remembers its own answers. */
function messages(turns: Turn[], side: "base" | "tuned", say: string, system: string): ChatMessage[] {
  const before = turns.flatMap((turn): ChatMessage[] => [{ role: "user", content: turn.said }, { role: "assistant", content: turn[side].trim() }]);
  return [...(system.trim() === "" ? [] : [{ role: "system", content: system.trim() } as const]), ...before, { role: "user", content: say }];
}

/** Ends the conversation. */
export function newConversation(): void {
  update("trial", { said: "", turns: [], base: noAnswer(), tuned: noAnswer(), problem: null });
}

/** Lets base and adapter answer, one after the other: they share one GPU. A run that trains waits meanwhile. */
export async function compare(asked: Asked, drawing: Drawing): Promise<void> {
  if (get().trial.busy || ["starting", "stopping"].includes(activeRun()?.state ?? "")) return;
  const chosen = chosenAdapter();
  const adapter = await resolved(chosen);
  const signal = newSignal();
  const partner = `${get().base.info?.contentHash ?? ""} ${chosen === null ? "" : get().trial.adapter}`;
  const chat = "say" in asked;
  const turns = chat ? turnsSoFar(partner) : [];
  update("trial", { busy: true, problem: null, said: chat ? asked.say : "", turns, partner, base: { ...noAnswer(), status: "waiting" }, tuned: chosen === null ? noAnswer() : { ...noAnswer(), status: "waiting" } });
  const sides: ["base" | "tuned", AdapterChoice][] = adapter === null ? [["base", "none"]] : [["base", "none"], ["tuned", adapter]];
  for (const [side, choice] of sides) {
    const answer = get().trial[side] as Answer;
    const prompt = chat ? messages(turns, side, asked.say, asked.system) : asked.text;
    await exclusive(() => write(answer, prompt, choice, drawing, signal));
    if (answer.status === "failed") break;
  }
  const { base, tuned } = get().trial;
  // Where the base could not answer, the adapter is not waited for.
  update("trial", { busy: false, ...(base.status === "failed" ? { tuned: noAnswer() } : {}) });
  if (base.status === "done") announce(`Base: ${base.text.trim()}.${tuned.status === "done" ? ` Adapter: ${tuned.text.trim()}.` : ""}`);
}

async function write(answer: Answer, prompt: string | ChatMessage[], adapter: AdapterChoice, drawing: Drawing, signal: AbortSignal): Promise<void> {
  if (signal.aborted) {
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

/** Ends what is being asked. */
export function stopCompare(): void {
  abort?.abort();
}
