/** Part of section 5: prompts out of the rows. */

import type { RowPreview } from "weblora";
import { messagesIn } from "../lib/conversation";
import { fill, h, show } from "../lib/dom";
import { get, watch } from "../state";

/** A row to begin with: what is asked, how the row goes on, and what its conversation was told before. */
export interface Sample {
  text: string;
  rest: string;
  system: string;
}

/** Prompts out of the rows, to begin with. */
export function suggestedPrompts(chosen: (sample: Sample) => void, offered: (sample: Sample) => void): HTMLElement {
  const list = h("ul", { class: "suggestions", "aria-label": "Prompts from the rows" });
  let drawn: RowPreview[] | null = null;
  watch(["rows"], () => {
    const { samples } = get().rows;
    if (samples === drawn) return;
    drawn = samples;
    const rows = samples.map(sampleOf).filter(({ text, rest }) => text !== "" && rest !== "");
    const [first] = rows;
    if (first) offered(first);
    show(list, rows.length > 0);
    fill(list, ...rows.map((sample) => h("li", {}, h("button", { type: "button", class: "suggestion", onclick: () => chosen(sample) }, sample.text))));
  });
  return list;
}

const ROLES = ["user", "assistant", "system", "model"];
/** ChatML writes a turn's role in the line above its words. */
const LEADING_ROLE = /^(?:user|assistant|system)\n/;
const TRAILING_ROLE = /\n(?:assistant)\n?$/;

/** Whether there is a chat template: the base's own, or one among the settings. */
export const hasTemplate = (): boolean => get().base.info?.chatTemplate === true || get().form.changed["chatTemplate"] !== undefined;

/** Whether the rows are conversations, which the template renders. */
export function conversational(): boolean {
  const { train } = get().rows;
  const format = get().form.changed["format"];
  return hasTemplate() && (format === "chat" || (format === undefined && train !== null && "text" in train && /^\s*\[?\s*\{"(?:messages|conversations)"/.test(train.text)));
}

/** The messages of a sample row, where it is a conversation. */
function messagesOf(row: RowPreview): ReturnType<typeof messagesIn> {
  const { heldOut, train } = get().rows;
  const rows = heldOut ?? train;
  return rows && "text" in rows ? messagesIn(rows.text.split("\n")[row.index - 1], get().form.changed["format"] === "chat") : null;
}

/** A row's first part that is only read, and what follows. */
function sampleOf(row: RowPreview): Sample {
  const messages = messagesOf(row);
  if (messages) return { text: messages.at(-2)?.content ?? "", rest: messages.at(-1)?.content ?? "", system: messages.find(({ role }) => role === "system")?.content ?? "" };
  const first = row.tokens.findIndex((token) => token.trained);
  const text = (tokens: RowPreview["tokens"]) => tokens.map((token) => token.text).join("");
  const control = /<\|[^|]*\|>|<\/?s>/g;
  const prompt = text(row.tokens.slice(0, first));
  // A conversation's control tokens belong to the template; such a row is offered by what its last turn says.
  const words = prompt.split(control).map((part) => part.trim()).filter((part) => part !== "" && !ROLES.includes(part));
  return { text: words.at(-1)?.replace(LEADING_ROLE, "").replace(TRAILING_ROLE, "").trim() ?? "", rest: text(row.tokens.slice(first)).replace(control, ""), system: "" };
}
