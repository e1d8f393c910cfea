/** Questions and answers as rows. */

import { messagesIn } from "./conversation";

/** One thing to teach. */
export interface Pair {
  question: string;
  answer: string;
}

/** A row: as a conversation for a model that chats, else as text that goes on after a space. */
export function rowOf({ question, answer }: Pair, chat: boolean): object {
  if (chat) return { messages: [{ role: "user", content: question.trim() }, { role: "assistant", content: answer.trim() }] };
  const apart = /\s$/.test(question) || /^\s/.test(answer);
  return { prompt: question, completion: apart ? answer : ` ${answer}` };
}

/** What {@link linesOf} was made of; `null` where a row is anything else. */
export function pairsIn(text: string): Pair[] | null {
  const pairs = text.split("\n").filter((line) => line.trim() !== "").map(pairIn);
  return pairs.every((pair) => pair !== null) ? pairs : null;
}

function pairIn(line: string): Pair | null {
  try {
    const { prompt, completion, messages, ...others } = JSON.parse(line) as Record<string, unknown>;
    if (Object.keys(others).length > 0) return null;
    if (typeof prompt === "string" && typeof completion === "string" && messages === undefined) return { question: prompt, answer: completion.replace(/^ /, "") };
    const [asked, answered, ...more] = messagesIn(line) ?? [];
    return asked?.role === "user" && answered && more.length === 0 ? { question: asked.content, answer: answered.content } : null;
  } catch {
    return null;
  }
}

/** JSON lines of all pairs with both parts. */
export function linesOf(pairs: Pair[], chat: boolean): string {
  return pairs.filter(({ question, answer }) => question.trim() !== "" && answer.trim() !== "").map((pair) => JSON.stringify(rowOf(pair, chat))).join("\n");
}
