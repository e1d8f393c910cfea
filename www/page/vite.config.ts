import { defineConfig } from "vite";

/** The page's own policy, sent as headers too, where the meta element cannot say everything (frames, the Worker). */
const policy = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self' https: http://localhost:* http://127.0.0.1:*",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

export default defineConfig(({ mode }) => ({
  // Relative addresses: the built folder works under any path of any static server.
  base: "./",
  // Mode `fake` builds the page against a stand-in for the package, which lives with the tests; the shipped page has no such thing.
  ...(mode === "fake" ? { resolve: { alias: { weblora: new URL("../tests/fake/weblora.ts", import.meta.url).pathname } } } : {}),
  build: {
    target: "es2022",
    outDir: mode === "fake" ? "../tests/.page-fake" : "dist",
    emptyOutDir: true,
    // Data addresses are not allowed by the policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
  preview: {
    port: 4173,
    headers: { "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer" },
  },
}));
