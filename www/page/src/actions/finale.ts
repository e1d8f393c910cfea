/** The end of a run: the rows' questions asked once more, of the base and of the adapter, and the answers counted. */

import type { AdapterChoice, ChatMessage, Rows } from "weblora";
import { announce } from "../lib/announce";
import { exclusive } from "../lib/queue";
import type { FormSettings } from "../lib/settings";
import { get, isTraining, update, type Run } from "../state";
import { trainer } from "../trainer";

/** A row with one answer. */
interface Question {
  prompt: string | ChatMessage[];
  shown: string;
  answer: string;
}

/** Rows that are asked at most, and tokens of an answer that one waits for. */
const MOST = 64;
const LONGEST = 48;

/** Fills the panel row by row, until all are asked or something else is begun. */
export async function showFinale(run: Run): Promise<void> {
  const adapter = run.best ?? run.adapter;
  if (!adapter) return;
  const sets = [run.rows.heldOut ?? run.rows.train].flat();
  try {
    const questions: Question[] = [];
    for (const rows of sets) questions.push(...(await questionsIn(rows, run, Math.ceil(MOST / sets.length))));
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
      const right = (text: string) => Number(text.trim() === question.answer.trim());
      update("finale", { ...(i === 0 ? { base: base.trim(), tuned: tuned.trim() } : {}), asked: i + 1, before: before + right(base), after: after + right(tuned) });
    }
    const { before, after, total } = get().finale;
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

/** The rows that end with one short answer. */
async function questionsIn(rows: Rows, run: Run, most: number): Promise<Question[]> {
  const made = await trainer();
  const settings: FormSettings = { ...run.settings, seq: run.config["seq"] ?? run.settings["seq"] };
  const { rows: seen } = await exclusive(() => made.preview(rows, settings, most));
  const lines = "text" in rows ? rows.text.split("\n") : [];
  return seen.flatMap((row) => {
    const at = row.tokens.findIndex(({ trained }) => trained);
    const answer = row.tokens.slice(at).filter(({ control }) => !control);
    if (at <= 0 || row.truncated || answer.length > LONGEST || answer.some(({ trained }) => !trained)) return [];
    const text = (tokens: typeof answer) => tokens.map((token) => token.text).join("").replace(/<\|[^|]*\|>/g, "");
    const chat = conversation(lines[row.index - 1]);
    if (chat) return [chat];
    if (row.tokens.slice(0, at).some(({ control }) => control)) return [];
    const prompt = text(row.tokens.slice(0, at));
    return [{ prompt, shown: prompt, answer: text(answer) }];
  });
}

/** A row of messages whose last turn is the answer. */
function conversation(line: string | undefined): Question | null {
  try {
    const { messages } = JSON.parse(line ?? "") as { messages?: ChatMessage[] };
    const last = messages?.at(-1);
    if (!messages || last?.role !== "assistant" || messages.length < 2) return null;
    return { prompt: messages.slice(0, -1), shown: messages.at(-2)?.content ?? "", answer: last.content };
  } catch {
    return null;
  }
}

/** An answer; unless it is wanted `whole`, only as far as it is the right one. */
async function ask({ prompt, answer }: Question, adapter: AdapterChoice, whole: boolean): Promise<string> {
  return exclusive(async () => {
    const made = await trainer();
    let text = "";
    for await (const piece of made.generate(prompt, { adapter, maxTokens: LONGEST })) {
      text += piece;
      if (!whole && !answer.trim().startsWith(text.trim()) && !text.trim().startsWith(answer.trim())) break;
    }
    return text;
  });
}
