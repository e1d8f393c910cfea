// A static server for the tests, with the manners and the bad manners of servers: ranges, no ranges, truncated answers, files that change.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".css": "text/css", ".svg": "image/svg+xml" };

/** Serves `root`, under /MANNER/NAME the files of `models` (name to bytes), and under /NAME/ the folders of `folders`. `state` may be changed while
 *  it serves. */
export async function serve(root, models = {}, folders = {}) {
  const state = { requests: [], version: "one", down: false, ends: Infinity };
  const answer = async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const [, manner, name] = pathname.split("/");
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const model = models[name];
    if (model && ["ranges", "plain", "short", "cut"].includes(manner)) {
      state.requests.push(`${manner} ${request.headers.range ?? "whole"}`);
      // Whatever begins at that byte or later is not to be had.
      if (state.down || Number(range?.[1] ?? 0) >= state.ends) return response.writeHead(503).end();
      const headers = { "content-type": "application/octet-stream", etag: `"${state.version}"` };
      if (range && manner !== "plain" && manner !== "cut") {
        const [from, to] = [Number(range[1]), Math.min(Number(range[2]), model.length - 1)];
        const bytes = model.subarray(from, to + 1);
        // A proxy that answers less than it was asked for.
        const part = manner === "short" && bytes.length > 1 ? bytes.subarray(0, bytes.length - 7) : bytes;
        return response.writeHead(206, { ...headers, "content-range": `bytes ${from}-${to}/${model.length}`, "content-length": part.length }).end(part);
      }
      response.writeHead(200, { ...headers, "content-length": model.length });
      if (manner === "cut") return response.write(model.subarray(0, model.length / 2), () => response.destroy());
      return response.end(model);
    }
    if (pathname === "/") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>weblora</title>");
    try {
      const rest = folders[manner] && pathname.slice(manner.length + 1);
      const bytes = await readFile(join(folders[manner] ?? root, normalize(rest ?? pathname)));
      response.writeHead(200, { "content-type": TYPES[extname(pathname)] ?? "application/octet-stream" }).end(bytes);
    } catch {
      response.writeHead(404).end("not found");
    }
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { url: `http://127.0.0.1:${server.address().port}/`, state, close: () => server.close() };
}
