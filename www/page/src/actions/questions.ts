/** Rows with one answer, asked of a model: whether it answers them exactly. */

import type { AdapterChoice, ChatMessage, Rows } from "weblora";
import { messagesIn } from "../lib/conversation";
import { exclusive } from "../lib/queue";
import type { FormSettings } from "../lib/settings";
import { trainer } from "../trainer";

/** A row with one answer. */
export interface Question {
  prompt: string | ChatMessage[];
  shown: string;
  answer: string;
}

/** Rows that are asked at most, and tokens of an answer that one waits for. */
const MOST = 64;
const LONGEST = 48;

/** The rows of some sets that end with one short answer, the first of each. */
export async function questionsIn(sets: Rows[], settings: FormSettings): Promise<Question[]> {
  const questions: Question[] = [];
  for (const rows of sets) questions.push(...(await questionsOf(rows, settings, Math.ceil(MOST / sets.length))));
  return questions;
}

async function questionsOf(rows: Rows, settings: FormSettings, most: number): Promise<Question[]> {
  const made = await trainer();
  const { rows: seen } = await exclusive(() => made.preview(rows, settings, most));
  const lines = "text" in rows ? rows.text.split("\n") : [];
  return seen.flatMap((row): Question[] => {
    const at = row.tokens.findIndex(({ trained }) => trained);
    const answer = row.tokens.slice(at).filter(({ control }) => !control);
    if (at <= 0 || row.truncated || answer.length > LONGEST || answer.some(({ trained }) => !trained)) return [];
    const messages = messagesIn(lines[row.index - 1], settings["format"] === "chat");
    const last = messages?.at(-1);
    if (messages && last) return [{ prompt: messages.slice(0, -1), shown: messages.at(-2)?.content ?? "", answer: last.content }];
    // The model puts the token that begins every text before a prompt by itself; others belong to a template.
    const read = row.tokens.slice(row.tokens[0]?.control ? 1 : 0, at);
    if (read.length === 0 || read.some(({ control }) => control)) return [];
    const text = (tokens: typeof answer) => tokens.map((token) => token.text).join("").replace(/<\|[^|]*\|>/g, "");
    const prompt = text(read);
    return [{ prompt, shown: prompt, answer: text(answer) }];
  });
}

/** An answer; unless it is wanted `whole`, only as far as it is the right one. */
export async function ask({ prompt, answer }: Question, adapter: AdapterChoice, whole: boolean, signal?: AbortSignal): Promise<string> {
  return exclusive(async () => {
    const made = await trainer();
    let text = "";
    for await (const piece of made.generate(prompt, { adapter, maxTokens: LONGEST, ...(signal ? { signal } : {}) })) {
      text += piece;
      if (!whole && !answer.trim().startsWith(text.trim()) && !text.trim().startsWith(answer.trim())) break;
    }
    return text;
  });
}

/** Whether a text is the answer. */
export const isRight = ({ answer }: Question, text: string): boolean => text.trim() === answer.trim();
