/** The end of a run: the rows' questions asked once more, of the base and of the adapter, and the answers counted. */

import { announce } from "../lib/announce";
import type { FormSettings } from "../lib/settings";
import { get, isTraining, touch, update, type Run } from "../state";
import { ask, isRight, questionsIn } from "./questions";

/** Fills the panel row by row, until all are asked or something else is begun. */
export async function showFinale(run: Run): Promise<void> {
  const adapter = run.best ?? run.adapter;
  if (!adapter) return;
  const settings: FormSettings = { ...run.settings, seq: run.config["seq"] ?? run.settings["seq"] };
  try {
    const questions = await questionsIn([run.rows.heldOut ?? run.rows.train].flat(), settings);
    const [first] = questions;
    if (!first || isTraining()) return;
    const start = { run: run.id, name: run.name, prompt: first.shown, expected: first.answer.trim(), base: "", tuned: "", asked: 0, total: questions.length, before: 0, after: 0, heldOut: run.rows.heldOut !== null };
    update("finale", start);
    for (const [i, question] of questions.entries()) {
      if (isTraining() || get().finale.run !== run.id) return;
      // The first answers are shown whole; of the others it is enough to see where they go another way.
      const base = await ask(question, "none", i === 0);
      const tuned = await ask(question, adapter, i === 0);
      const { before, after } = get().finale;
      const asked = { asked: i + 1, before: before + Number(isRight(question, base)), after: after + Number(isRight(question, tuned)) };
      update("finale", { ...(i === 0 ? { base: base.trim(), tuned: tuned.trim() } : {}), ...asked });
    }
    const { before, after, total } = get().finale;
    run.exact = after / total;
    touch("runs");
    announce(`Answered exactly: ${before} of ${total} rows before, ${after} after.`);
  } catch {
    // A picture of the end is worth no error: the run is over and kept.
    if (get().finale.run === run.id && get().finale.asked === 0) hideFinale();
  }
}

/** Takes the panel away. */
export function hideFinale(): void {
  update("finale", { run: "" });
}
