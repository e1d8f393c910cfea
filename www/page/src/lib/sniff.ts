/** What a picked or dropped file is, from its first bytes rather than its name. */

import { rowOf } from "./pairs";
import { PageError } from "./problem";

export type FileKind = "gguf" | "zip" | "foreign" | "checkpoint" | "adapter-weights" | "adapter-config" | "run-file" | "rows" | "unknown";

/** Rows are edited and tokenised as one text; a larger set belongs to the command line. */
export const MAX_ROWS_BYTES = 64e6;

const MAX_HEADER = 100e6;

/** Looks at the beginning of a file. */
export async function sniff(file: File): Promise<FileKind> {
  const head = new Uint8Array(await file.slice(0, 512).arrayBuffer());
  const ascii = String.fromCharCode(...head.subarray(0, 4));
  if (ascii === "GGUF") return "gguf";
  const name = file.name.toLowerCase();
  if (ascii === "PK\u0003\u0004") return OFFICE.test(name) ? "foreign" : "zip";
  if (foreignKind(head, name)) return "foreign";
  if (name.endsWith(".safetensors")) return (await checkpointState(file)) ? "checkpoint" : "adapter-weights";
  if (name === "adapter_config.json") return "adapter-config";
  if (name.endsWith(".toml")) return "run-file";
  if (/\.(jsonl|ndjson|json|txt|csv|tsv)$/.test(name)) return "rows";
  return looksLikeText(head) && /^\s*[{[]/.test(new TextDecoder().decode(head)) ? "rows" : "unknown";
}

/** What a checkpoint says about its run. */
export interface CheckpointState {
  step: number;
  config: Record<string, unknown>;
  baseHash: string;
  version: number;
}

/** Reads the state in a checkpoint's header; `null` for a safetensors file that is none. */
export async function checkpointState(file: Blob): Promise<CheckpointState | null> {
  const size = new DataView(await file.slice(0, 8).arrayBuffer());
  if (size.byteLength < 8) return null;
  const length = Number(size.getBigUint64(0, true));
  if (length <= 0 || length > Math.min(MAX_HEADER, file.size - 8)) return null;
  try {
    const header = JSON.parse(await file.slice(8, 8 + length).text()) as { __metadata__?: Record<string, string> };
    const ours = header.__metadata__?.["weblora"];
    if (!ours) return null;
    const state = JSON.parse((JSON.parse(ours) as { state: string }).state) as Record<string, unknown>;
    return {
      step: Number(state["step"]),
      config: (state["config"] ?? {}) as Record<string, unknown>,
      baseHash: String(state["base_hash"]),
      version: Number(state["version"]),
    };
  } catch {
    return null;
  }
}

function looksLikeText(head: Uint8Array): boolean {
  return head.length > 0 && !head.includes(0);
}

/** Zip files of other programs, by their names. */
const OFFICE = /\.(xlsx|xlsm|ods|docx|odt|pptx)$/;

/** What people have rows in and what is not read: first bytes, name, what to do. */
const FOREIGN: [string, string, string][] = [
  ["PAR1", "a Parquet file", "export it as JSON lines or CSV"],
  ["PK", "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"],
  ["%PDF", "a PDF", "copy its text into a file, one piece a paragraph"],
];

function foreignKind(head: Uint8Array, name: string): string | null {
  const found = FOREIGN.find(([magic]) => String.fromCharCode(...head.subarray(0, magic.length)) === magic);
  return found ? `${name} is ${found[1]}, which is not read here; ${found[2]}.` : null;
}

/** Why a file that {@link sniff} calls foreign is not read. */
export async function whyForeign(file: File): Promise<string> {
  return foreignKind(new Uint8Array(await file.slice(0, 8).arrayBuffer()), file.name) ?? `${file.name} is nothing this page reads.`;
}

/** The text of a file: UTF-8, what a byte order mark says, or the code page in which spreadsheets still save tables. */
export async function textOf(file: File): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const marked = WIDE.find(([first, second]) => bytes[0] === first && bytes[1] === second);
  if (marked) return new TextDecoder(marked[2]).decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

const WIDE: [number, number, string][] = [[0xff, 0xfe, "utf-16le"], [0xfe, 0xff, "utf-16be"]];

/** The text of a rows file as JSON lines: JSON arrays become lines, plain text becomes one row a paragraph. */
export async function rowsText(file: File, chat: boolean): Promise<string> {
  if (file.size === 0) throw new PageError("data", `${file.name} is empty; choose a file with one JSON object a line.`);
  if (file.size > MAX_ROWS_BYTES) {
    const size = (file.size / 1e6).toFixed(0);
    throw new PageError("data", `${file.name} has ${size} MB; this page takes rows up to ${MAX_ROWS_BYTES / 1e6} MB. Cut it, or use the command line.`);
  }
  const head = new Uint8Array(await file.slice(0, 4096).arrayBuffer());
  const foreign = foreignKind(head, file.name);
  if (foreign) throw new PageError("data", foreign);
  const wide = WIDE.some(([first, second]) => head[0] === first && head[1] === second);
  if (!wide && !looksLikeText(head)) throw new PageError("data", `${file.name} is not text; rows are JSON lines, a JSON array, CSV or TSV, or plain text.`);
  return toJsonLines(await textOf(file), file.name, chat);
}

/** As {@link rowsText}, for a text. With `chat`, questions and answers become conversations. */
export function toJsonLines(text: string, name: string, chat: boolean): string {
  const trimmed = text.trimStart();
  if (trimmed.startsWith("[") && !/^\[[^{]/.test(trimmed.replace(/\s/g, ""))) {
    let rows: unknown;
    try {
      rows = JSON.parse(text);
    } catch (error) {
      throw new PageError("data", `${name} begins like a JSON array but is none: ${(error as Error).message}.`);
    }
    return (rows as unknown[]).map((row) => JSON.stringify(known(row, chat))).join("\n");
  }
  if (trimmed.startsWith("{") || trimmed === "") return text.includes('"question"') ? text.split("\n").map((line) => knownLine(line, chat)).join("\n") : text;
  if (!/\.(jsonl|ndjson|json)$/i.test(name)) {
    const paragraphs = text.split(/\n\s*\n/).map((part) => part.trim());
    return paragraphs.filter(Boolean).map((part) => JSON.stringify({ text: part })).join("\n");
  }
  return text;
}

/** A row with `question` and `answer` as one that the crate reads; others as they are. */
function known(row: unknown, chat: boolean): unknown {
  const { question, answer, ...others } = (row ?? {}) as Record<string, unknown>;
  const read = ["prompt", "completion", "instruction", "messages", "conversations", "text"].some((key) => key in others);
  return typeof question === "string" && typeof answer === "string" && !read ? rowOf({ question, answer }, chat) : row;
}

function knownLine(line: string, chat: boolean): string {
  try {
    return line.trim() === "" ? line : JSON.stringify(known(JSON.parse(line), chat));
  } catch {
    // The crate says which line is no row.
    return line;
  }
}
