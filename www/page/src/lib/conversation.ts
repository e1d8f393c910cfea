/** Rows that are conversations, as the messages they are made of. */

import type { ChatMessage } from "weblora";

/** ShareGPT's names of who speaks. */
const SPEAKERS: Record<string, ChatMessage["role"]> = { human: "user", user: "user", gpt: "assistant", assistant: "assistant", system: "system" };

/** A row's messages where the last of them is the assistant's answer; `null` for any other row. With `chat`, a prompt and its completion are two messages. */
export function messagesIn(line: string | undefined, chat = false): ChatMessage[] | null {
  const row = parse(line);
  const messages = row && (fromMessages(row) ?? (chat ? fromPrompt(row) : null));
  return messages && messages.length >= 2 && messages.at(-1)?.role === "assistant" ? messages : null;
}

function parse(line: string | undefined): Record<string, unknown> | null {
  try {
    const row: unknown = JSON.parse(line ?? "");
    return typeof row === "object" && row !== null ? (row as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function fromMessages({ messages, conversations, system }: Record<string, unknown>): ChatMessage[] | null {
  const turns: unknown = messages ?? conversations;
  if (!Array.isArray(turns)) return null;
  const read = turns.map((turn: Record<string, unknown>): ChatMessage | null => {
    const role = SPEAKERS[String(turn["role"] ?? turn["from"])];
    const content = turn["content"] ?? turn["value"];
    return role && typeof content === "string" ? { role, content } : null;
  });
  const all = typeof system === "string" ? [{ role: "system", content: system } as const, ...read] : read;
  return all.every((turn) => turn !== null) ? all : null;
}

function fromPrompt({ prompt, completion }: Record<string, unknown>): ChatMessage[] | null {
  if (typeof prompt !== "string" || typeof completion !== "string") return null;
  return [{ role: "user", content: prompt.trim() }, { role: "assistant", content: completion.trim() }];
}
