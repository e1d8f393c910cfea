/** Tokens, files and time of the stand-in. */

import type * as T from "../../package/src/types";
import { WebloraError } from "../../package/src/errors";

export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const DEMO: Row[] = Array.from({ length: 480 }, (_, i) => ({
  prompt: `Anna has a black lamp. Ben has a brown boat number ${i}. Ben and Anna swap. Now`,
  completion: " Anna has a brown boat. Ben has a black lamp.",
}));

/** Words for tokens; what follows the prompt is trained. */
export function tokenise(rows: T.Rows, seq: number): { examples: T.RowPreview[]; warnings: string[] } {
  const objects = "embedded" in rows ? DEMO.slice(0, rows.embedded === "train" ? 480 : 64) : parse(rows);
  const examples = objects.map((row, i) => {
    const turns = row.messages?.map((m) => [`<|${m.role}|>${m.content}`, m.role === "assistant"] as const);
    const parts = turns ?? ([[row.prompt ?? "", false], [row.completion ?? row.text ?? "", true]] as const);
    const tokens = parts.flatMap(([text, trained]) => (text.match(/<\|\w+\|>|[ßäöü]|\s?(?:(?![ßäöü])[\p{L}\d]){1,5}|\s?[^\p{L}\d\s]|\s/gu) ?? []).map((piece) => ({ text: piece, trained })));
    tokens.push({ text: "<|end|>", trained: true });
    return { index: i + 1, tokens: tokens.slice(0, seq), truncated: tokens.length > seq };
  });
  const cut = examples.filter(({ truncated }) => truncated).length;
  return { examples, warnings: cut ? [`${cut} of ${examples.length} rows are longer than ${seq} tokens and were cut`] : [] };
}

interface Row {
  prompt?: string;
  completion?: string;
  text?: string;
  messages?: { role: string; content: string }[];
}

function parse(rows: { text: string; name?: string }): Row[] {
  const lines = rows.text.split("\n").filter((line) => line.trim());
  const name = rows.name ?? "rows";
  if (lines.length === 0) throw new WebloraError("data", `${name}, row 0: there are no rows; give one JSON object a line`);
  return lines.map((line, i) => {
    try {
      return JSON.parse(line) as Row;
    } catch {
      throw new WebloraError("data", `${name}, row ${i + 1}: not a JSON object; give one JSON object a line`);
    }
  });
}

/** A PEFT folder that is one in name only. */
export function peftFiles(routed = false): T.AdapterFile[] {
  const text = new TextEncoder();
  return [
    { name: "adapter_config.json", bytes: text.encode(routed ? '{"peft_type": "MIXLORA", "r": 8, "routing_strategy": "mixlora", "num_experts": 4, "top_k": 2}\n' : '{"peft_type": "LORA", "r": 8}\n') },
    { name: "adapter_model.safetensors", bytes: new Uint8Array(400_000) },
  ];
}

/** The file that makes a chain of a folder; none where there are no links. */
export function chainFile(links: T.Link[]): T.AdapterFile[] {
  return links.length === 0 ? [] : [{ name: "chain.json", bytes: new TextEncoder().encode(JSON.stringify(links)) }];
}

/** The links of such a folder. */
export function linksIn(files: T.AdapterFile[]): T.Link[] {
  const file = files.find(({ name }) => name === "chain.json");
  return file ? (JSON.parse(new TextDecoder().decode(file.bytes)) as T.Link[]) : [];
}

/** A safetensors header with a run's state, as checkpoints have. */
export function checkpointBytes(step: number, config: T.Settings, baseHash: string): Uint8Array {
  const state = JSON.stringify({ version: 1, step, config, base_hash: baseHash });
  const header = new TextEncoder().encode(JSON.stringify({ __metadata__: { weblora: JSON.stringify({ state, checksum: "0" }) } }));
  const bytes = new Uint8Array(8 + header.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  return bytes;
}
