// The page's end of the line to the Worker: requests, and whatever answers them.

import { WebloraError } from "./errors.js";
import type { Calls, Item, Method, Reply, Request } from "./protocol.js";
import type { Progress } from "./types.js";

interface Pending {
  resolve: (value: never) => void;
  reject: (error: WebloraError) => void;
  onProgress?: ((progress: Progress) => void) | undefined;
  onItem?: ((item: Item) => void) | undefined;
}

/** What may accompany a call. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
  onItem?: ((item: Item) => void) | undefined;
}

/** Calls into one Worker. */
export class Caller {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #last = 0;
  #dead: WebloraError | undefined;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = (message: MessageEvent<Reply>) => this.#receive(message.data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#die(new WebloraError("panic", `the Worker failed: ${event.message || "its script could not be loaded"}; reload the page`));
    };
  }

  call<M extends Method>(method: M, args: Parameters<Calls[M]>, options: CallOptions = {}): Promise<ReturnType<Calls[M]>> {
    const { signal, onProgress, onItem } = options;
    if (this.#dead) return Promise.reject(this.#dead);
    if (signal?.aborted) return Promise.reject(new WebloraError("aborted", "aborted by request"));
    const id = ++this.#last;
    const abort = () => this.#post({ abort: id });
    return new Promise<ReturnType<Calls[M]>>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress, onItem });
      signal?.addEventListener("abort", abort, { once: true });
      try {
        this.#post({ id, method, args });
      } catch (error) {
        // An argument that cannot be sent to a Worker, such as a function.
        this.#pending.delete(id);
        reject(new WebloraError("config", `${method}: an argument cannot be sent to the Worker; pass plain objects`, [String(error)]));
      }
    }).finally(() => signal?.removeEventListener("abort", abort));
  }

  /** Ends the Worker. */
  terminate(): void {
    this.#worker.terminate();
    this.#die(new WebloraError("stopped", "this Trainer was freed"));
  }

  #post(request: Request): void {
    this.#worker.postMessage(request);
  }

  #receive(reply: Reply): void {
    const pending = this.#pending.get(reply.id);
    if (!pending) return;
    if ("progress" in reply) {
      pending.onProgress?.(reply.progress);
    } else if ("item" in reply) {
      pending.onItem?.(reply.item);
    } else {
      this.#pending.delete(reply.id);
      if ("error" in reply) {
        const { code, message, causes } = reply.error;
        pending.reject(new WebloraError(code, message, causes));
      } else {
        pending.resolve(reply.result as never);
      }
    }
  }

  #die(error: WebloraError): void {
    this.#dead ??= error;
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }
}
