/** Questions and answers as rows. */

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

/** JSON lines of all pairs with both parts. */
export function linesOf(pairs: Pair[], chat: boolean): string {
  return pairs.filter(({ question, answer }) => question.trim() !== "" && answer.trim() !== "").map((pair) => JSON.stringify(rowOf(pair, chat))).join("\n");
}
