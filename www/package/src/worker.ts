// The Worker's end of the line: requests in, replies out. What they mean is in host.ts.

import { WebloraError } from "./errors.js";
import { Host, type Call } from "./host.js";
import type { Reply, Request } from "./protocol.js";

// The part of the Worker's global scope that is used here: TypeScript's DOM library describes a page.
const scope = globalThis as unknown as {
  postMessage(message: Reply, transfer?: Transferable[]): void;
  onmessage: ((message: MessageEvent<Request>) => void) | null;
};

const host = new Host();
const running = new Map<number, AbortController>();

/** Buffers that can be handed over instead of copied. Results are not used here after they are sent. */
function buffers(result: unknown): Transferable[] {
  if (result instanceof Uint8Array) return [result.buffer];
  if (Array.isArray(result)) return result.flatMap(buffers);
  if (result && typeof result === "object" && "bytes" in result) return buffers(result.bytes);
  return [];
}

async function answer(id: number, method: string, args: unknown[]): Promise<void> {
  const control = new AbortController();
  running.set(id, control);
  const call: Call = {
    signal: control.signal,
    progress: (progress) => scope.postMessage({ id, progress }),
    item: (item) => scope.postMessage({ id, item }),
  };
  try {
    const result = await host.call(method, args, call);
    scope.postMessage({ id, result }, buffers(result));
  } catch (thrown) {
    const error = WebloraError.from(thrown);
    // A call that was aborted fails with whatever was interrupted; the caller knows it as what it asked for.
    const code = control.signal.aborted && error.code === "stopped" ? "aborted" : error.code;
    scope.postMessage({ id, error: { code, message: error.message, causes: error.causes } });
  } finally {
    running.delete(id);
  }
}

scope.onmessage = ({ data }) => {
  if ("abort" in data) {
    running.get(data.abort)?.abort();
  } else {
    void answer(data.id, data.method, data.args);
  }
};
