/** Scoring an adapter: rows measured and asked twice. */

import type { AdapterChoice, Rows } from "weblora";
import { announce } from "../lib/announce";
import { loss, percent } from "../lib/format";
import { isAbort, problem } from "../lib/problem";
import { exclusive } from "../lib/queue";
import { get, runSettings, update, type Scores } from "../state";
import { trainer } from "../trainer";
import { ask, isRight, questionsIn } from "./questions";
import { chosenAdapter, newSignal, resolved } from "./trial";

/** Measures rows without and with the adapter: their loss, choices answered right, and answers that are the row's own. */
export async function score(rows: Rows, name: string): Promise<void> {
  const adapter = await resolved(chosenAdapter());
  if (get().trial.busy || adapter === null) return;
  update("trial", { busy: true, scoring: true, scores: null, problem: null });
  const signal = newSignal();
  try {
    const made = await trainer();
    const [base, tuned] = await exclusive(async () => {
      const before = await made.evaluate(rows, { adapter: "none", signal });
      return [before, await made.evaluate(rows, { adapter, signal })] as const;
    });
    const accuracy = base.accuracy !== undefined && tuned.accuracy !== undefined ? { base: base.accuracy, tuned: tuned.accuracy } : null;
    const scores: Scores = { name, base: base.loss, tuned: tuned.loss, tokens: tuned.tokens, accuracy, exact: null };
    update("trial", { scores });
    await countExact(rows, adapter, signal);
    const { exact } = get().trial.scores ?? { exact: null };
    const right = exact ? ` Answered exactly: ${percent(exact.base / exact.asked)}, with adapter ${percent(exact.tuned / exact.asked)}.` : "";
    announce(`Loss of ${name}: base ${loss(base.loss)}, with adapter ${loss(tuned.loss)}.${right}`);
  } catch (error) {
    if (!isAbort(error)) update("trial", { problem: problem(error) });
  } finally {
    update("trial", { busy: false, scoring: false });
  }
}

/** Asks both sides every row that has one answer. */
async function countExact(rows: Rows, adapter: AdapterChoice, signal: AbortSignal): Promise<void> {
  const questions = await questionsIn([rows], runSettings());
  let exact = { asked: 0, total: questions.length, base: 0, tuned: 0 };
  for (const question of questions) {
    const base = await ask(question, "none", false, signal);
    const tuned = await ask(question, adapter, false, signal);
    exact = { ...exact, asked: exact.asked + 1, base: exact.base + Number(isRight(question, base)), tuned: exact.tuned + Number(isRight(question, tuned)) };
    const { scores } = get().trial;
    if (scores) update("trial", { scores: { ...scores, exact } });
  }
}
