/** Zip files of adapters and runs. */

import type { AdapterFile } from "weblora";
import type { Reply, Request } from "./archive.worker";
import { PageError } from "./problem";

/** The largest archive that is taken, and the most that one may unpack to: an adapter, not a model. */
const MAX_ARCHIVE = 1e9;

/** Packs files. */
export async function pack(files: AdapterFile[]): Promise<Uint8Array> {
  const reply = await ask({ pack: files });
  if ("zip" in reply) return reply.zip;
  throw new PageError("internal", `The archive could not be made: ${"error" in reply ? reply.error : "no answer"}.`);
}

/** Unpacks files; folders in names are kept. */
export async function unpack(file: File): Promise<AdapterFile[]> {
  if (file.size > MAX_ARCHIVE) throw new PageError("format", `${file.name} is larger than 1 GB; an adapter is smaller. Choose another file.`);
  const reply = await ask({ unpack: file, limit: MAX_ARCHIVE });
  if ("files" in reply) return reply.files;
  const why = "error" in reply ? reply.error : "no answer";
  throw new PageError("format", `${file.name} cannot be unpacked (${why}); choose a zip file that this page or PEFT made.`);
}

function ask(request: Request): Promise<Reply> {
  const worker = new Worker(new URL("./archive.worker.ts", import.meta.url), { type: "module" });
  return new Promise<Reply>((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<Reply>) => resolve(data);
    worker.onerror = () => reject(new PageError("internal", "The archive Worker did not start; reload the page."));
    worker.postMessage(request);
  }).finally(() => worker.terminate());
}

/** The PEFT folder among files: the first folder with both files in it. */
export function findAdapter(files: AdapterFile[]): AdapterFile[] | null {
  const config = files.find((file) => baseName(file.name) === "adapter_config.json");
  if (!config) return null;
  const folder = config.name.slice(0, -"adapter_config.json".length);
  const inside = files.filter((file) => file.name.startsWith(folder) && !file.name.slice(folder.length).includes("/"));
  if (!inside.some((file) => ["adapter_model.safetensors", "adapter_model.bin"].includes(baseName(file.name)))) return null;
  const known = /\.(json|safetensors|bin)$/;
  return inside.filter((file) => known.test(file.name)).map((file) => ({ name: baseName(file.name), bytes: file.bytes }));
}

/** The routing of an adapter with experts; `null` of any other. What it says is checked by the crate. */
export function routingOf(files: AdapterFile[]): { method: string; experts: unknown; topK: unknown } | null {
  const config = files.find(({ name }) => name === "adapter_config.json");
  try {
    const { peft_type: kind, routing_strategy: method = "mixlora", num_experts: experts, top_k: topK } = JSON.parse(new TextDecoder().decode(config?.bytes)) as Record<string, unknown>;
    return kind === "MIXLORA" ? { method: method === "mixtral" ? "mixlora" : String(method), experts, topK } : null;
  } catch {
    return null;
  }
}

/** Whether an adapter has routers and experts. */
export const hasExperts = (files: AdapterFile[]): boolean => routingOf(files) !== null;

/** The part after the last slash. */
export const baseName = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
