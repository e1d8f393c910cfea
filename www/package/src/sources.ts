// Bytes by range: of a Blob (a picked file, a file of the origin's storage) and of a server.

import type { ByteSource } from "../wasm/weblora.js";
import { WebloraError } from "./errors.js";

export function blobSource(blob: Blob, name: string): ByteSource {
  return {
    name,
    size: blob.size,
    async read(offset, length) {
      try {
        return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      } catch (error) {
        throw new WebloraError("io", `${name} could not be read: it was moved, changed or deleted; choose it again`, [String(error)]);
      }
    },
  };
}

/** What a server says about a file. */
export interface RemoteFile {
  url: string;
  name: string;
  /** Undefined where the server does not say. */
  size: number | undefined;
  /** Whether it answers ranges. */
  ranges: boolean;
  /** ETag or date by which a change is noticed; weak ones change at least as often as the bytes. */
  version: string | undefined;
}

const network = (url: string, problem: string, cause?: unknown) =>
  new WebloraError("network", `${url}: ${problem}`, cause === undefined ? [] : [String(cause)]);

async function get(url: string, headers: Record<string, string>, signal: AbortSignal | undefined, method = "GET"): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { method, headers, ...(signal ? { signal } : {}), credentials: "omit" });
  } catch (error) {
    if (signal?.aborted) throw new WebloraError("aborted", "aborted by request");
    throw network(url, "the server cannot be reached, or does not allow this page to read the file (CORS)", error);
  }
  if (!response.ok) throw network(url, `the server answered ${response.status} ${response.statusText}`.trim());
  return response;
}

const versionOf = (response: Response) => response.headers.get("etag") ?? response.headers.get("last-modified") ?? undefined;

/** The whole address of what a page was told. */
export function addressOf(url: string): string {
  try {
    return new URL(url, globalThis.location?.href).href;
  } catch {
    throw new WebloraError("config", `"${url}" is no address; give one such as https://example.org/model.gguf`);
  }
}

/** The last part of the address, without what follows it; as it is written where its escapes (`%zz`) say nothing. */
export function nameOf(url: string): string {
  const { pathname } = new URL(url, globalThis.location?.href);
  const name = pathname.slice(pathname.lastIndexOf("/") + 1);
  try {
    return decodeURIComponent(name) || url;
  } catch {
    return name;
  }
}

/** Asks for one byte: whether ranges are answered, how large the file is, which version it is. */
export async function probe(url: string, signal?: AbortSignal): Promise<RemoteFile> {
  const response = await get(url, { range: "bytes=0-0" }, signal);
  const name = nameOf(url);
  const length = response.headers.get("content-length");
  void response.body?.cancel();
  if (response.status !== 206) {
    // A compressed answer is longer than it says.
    const plain = !response.headers.get("content-encoding");
    return { url, name, size: plain && length ? Number(length) : undefined, ranges: false, version: versionOf(response) };
  }
  const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
  if (total) return { url, name, size: Number(total), ranges: true, version: versionOf(response) };
  // Content-Range is not among the headers that other origins may read unasked; Content-Length is.
  const whole = await get(url, {}, signal, "HEAD").then((head) => Number(head.headers.get("content-length") ?? NaN), () => NaN);
  return Number.isFinite(whole)
    ? { url, name, size: whole, ranges: true, version: versionOf(response) }
    : { url, name, size: undefined, ranges: false, version: versionOf(response) };
}

/** Bytes `offset` to `offset + length` of a file that answers ranges; notices when it is no longer the file that was probed. */
export async function fetchRange(file: RemoteFile, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  const response = await get(file.url, { range: `bytes=${offset}-${offset + length - 1}` }, signal);
  const version = versionOf(response);
  if (response.status !== 206 || (file.version && version && version !== file.version)) {
    void response.body?.cancel();
    throw network(file.url, "the file changed on the server while it was read; load it again");
  }
  let bytes: ArrayBuffer;
  try {
    bytes = await response.arrayBuffer();
  } catch (error) {
    if (signal?.aborted) throw new WebloraError("aborted", "aborted by request");
    throw network(file.url, `the connection ended within ${length} bytes at ${offset}; try again`, error);
  }
  if (bytes.byteLength !== length) {
    throw network(file.url, `the download is truncated: ${bytes.byteLength} bytes came where ${length} at offset ${offset} of ${file.size} were expected; try again`);
  }
  return new Uint8Array(bytes);
}

/** A file on a server that answers ranges, without a copy. */
export function httpSource(file: RemoteFile & { size: number }): ByteSource {
  return { name: file.name, size: file.size, read: (offset, length) => fetchRange(file, offset, length) };
}

/** The whole file in pieces, from a server without ranges. Ends with an error when it is shorter or longer than the server said. */
export async function* fetchWhole(file: RemoteFile, signal?: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const response = await get(file.url, {}, signal);
  if (!response.body) throw network(file.url, "the server sent no content");
  const reader = response.body.getReader();
  let done = 0;
  try {
    for (;;) {
      const piece = await reader.read().catch((error: unknown) => {
        if (signal?.aborted) throw new WebloraError("aborted", "aborted by request");
        throw network(file.url, `the connection ended after ${done} of ${file.size ?? "unknown"} bytes; try again`, error);
      });
      if (piece.done) break;
      done += piece.value.byteLength;
      yield piece.value;
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
  if (file.size !== undefined && done !== file.size) {
    throw network(file.url, `the download is truncated: ${done} bytes came where ${file.size} were expected; try again`);
  }
}
