/** Tables of text: comma, semicolon or tab between columns, quotes as in RFC 4180. */

import type { Pair } from "./pairs";
import { PageError } from "./problem";
import { textOf } from "./sniff";

/** A table whose lines have as many cells as its first. */
export interface Table {
  cells: string[][];
}

const DELIMITERS = [",", ";", "\t"];

/** Headers that say which column is which, the most telling first. */
const ASKS = ["question", "prompt", "instruction", "input", "q", "front", "source"];
const ANSWERS = ["answer", "completion", "response", "output", "a", "back", "target"];

/** Reads a table; `null` where the text is none: fewer than two columns, or one line. */
export function readTable(text: string): Table | null {
  const head = text.slice(0, text.indexOf("\n") < 0 ? undefined : text.indexOf("\n"));
  const [delimiter = ","] = DELIMITERS.toSorted((a, b) => head.split(b).length - head.split(a).length);
  const cells = split(text, delimiter).filter((line) => line.some((cell) => cell.trim() !== ""));
  const columns = cells[0]?.length ?? 0;
  return columns >= 2 && cells.length >= 2 ? { cells: cells.map((line) => Array.from({ length: columns }, (_, i) => line[i] ?? "")) } : null;
}

function split(text: string, delimiter: string): string[][] {
  const lines: string[][] = [];
  let line: string[] = [];
  let cell = "";
  let quoted = false;
  const endCell = () => {
    line.push(cell);
    cell = "";
  };
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i] as string;
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[(i += 1)] as string;
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === delimiter) endCell();
    else if (c === "\n") {
      endCell();
      lines.push(line);
      line = [];
    } else if (c !== "\r") cell += c;
  }
  if (cell !== "" || line.length > 0) {
    endCell();
    lines.push(line);
  }
  return lines;
}

/** Which columns hold questions and answers, and whether the first line names them. */
export function guessColumns({ cells }: Table): { question: number; answer: number; named: boolean } {
  const head = (cells[0] ?? []).map((name) => name.trim().toLowerCase());
  const find = (names: string[]) => names.map((name) => head.indexOf(name)).find((at) => at >= 0) ?? -1;
  const [question, answer] = [find(ASKS), find(ANSWERS)];
  if (question >= 0 && answer >= 0 && question !== answer) return { question, answer, named: true };
  return { question: 0, answer: 1, named: question >= 0 || answer >= 0 };
}

/** The table in a file that is called one; `null` for other files. */
export async function tableIn(file: File): Promise<Table | null> {
  if (!/\.(csv|tsv)$/i.test(file.name)) return null;
  const table = readTable(await textOf(file));
  if (!table) throw new PageError("data", `${file.name} has no two columns with rows in them; give a table of questions and answers.`);
  return table;
}

/** Two columns of a table, without the line of their names, as questions and answers. */
export function pairsOf({ cells }: Table, { question, answer, named }: { question: number; answer: number; named: boolean }): Pair[] {
  return cells.slice(named ? 1 : 0).map((line) => ({ question: line[question] ?? "", answer: line[answer] ?? "" }));
}
