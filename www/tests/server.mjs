/**
 * A plain static server for the tests: the built page under a sub-path, as any server may have it, with no headers that the page would need.
 * `/models/` serves GGUF files with ranges, `/plain/` the same without.
 */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const ROOTS = {
  "/some/where/": join(here, "../page/dist"),
  "/fake/": join(here, ".page-fake"),
  "/models/": join(here, "../../assets/demo"),
  "/plain/": join(here, "../../assets/demo"),
};
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".jsonl": "application/jsonl",
};

async function answer(path, range, response) {
  const prefix = Object.keys(ROOTS).find((each) => path.startsWith(each));
  const root = prefix && ROOTS[prefix];
  const rest = prefix ? path.slice(prefix.length) || "index.html" : "";
  const file = root ? join(root, normalize(rest)) : "";
  const found = root && file.startsWith(root) ? await stat(file).catch(() => null) : null;
  if (!found?.isFile()) return void response.writeHead(404).end("not found");
  const headers = { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Cache-Control": "no-cache" };
  const asked = prefix === "/models/" ? /^bytes=(\d+)-(\d*)$/.exec(range ?? "") : null;
  if (!asked) {
    response.writeHead(200, { ...headers, "Content-Length": found.size });
    return void createReadStream(file).pipe(response);
  }
  const start = Number(asked[1]);
  const end = Math.min(asked[2] ? Number(asked[2]) : found.size - 1, found.size - 1);
  response.writeHead(206, { ...headers, "Accept-Ranges": "bytes", "Content-Length": end - start + 1, "Content-Range": `bytes ${start}-${end}/${found.size}` });
  createReadStream(file, { start, end }).pipe(response);
}

const port = Number(process.env["WEBLORA_TEST_PORT"] ?? 4179);
createServer((request, response) => {
  void answer(decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname), request.headers.range, response);
}).listen(port, "127.0.0.1", () => console.log(`serving on http://127.0.0.1:${port}`));
