/** Zipping and unzipping off the main thread: checksums of a large adapter would be a long task there. */

import { zipSync, type Zippable } from "fflate";
import { unzip } from "./zip";

export type Request = { pack: { name: string; bytes: Uint8Array }[] } | { unpack: Blob; limit: number };
export type Reply = { zip: Uint8Array<ArrayBuffer> } | { files: { name: string; bytes: Uint8Array<ArrayBuffer> }[] } | { error: string };

onmessage = async ({ data }: MessageEvent<Request>) => {
  const reply = await work(data).catch((error: unknown): Reply => ({ error: error instanceof Error ? error.message : String(error) }));
  postMessage(reply);
};

async function work(request: Request): Promise<Reply> {
  if ("pack" in request) {
    const entries: Zippable = {};
    // Weights do not shrink, so they are stored.
    for (const { name, bytes } of request.pack) entries[name] = [bytes, { level: name.endsWith(".safetensors") ? 0 : 6 }];
    return { zip: zipSync(entries) as Uint8Array<ArrayBuffer> };
  }
  const bytes = new Uint8Array(await request.unpack.arrayBuffer());
  return { files: unzip(bytes, request.limit) };
}
