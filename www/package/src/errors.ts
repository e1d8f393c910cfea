// One error class, with the same codes on both sides of the Worker.

import type { ErrorCode } from "./types.js";

/** What every rejected promise of this package rejects with. `message` is one sentence for people. */
export class WebloraError extends Error {
  readonly code: ErrorCode;
  /** The messages of what lies beneath, outermost first. */
  readonly causes: string[];

  constructor(code: ErrorCode, message: string, causes: string[] = []) {
    super(message);
    this.name = "WebloraError";
    this.code = code;
    this.causes = causes;
  }

  /** The error that `thrown` is, whatever was thrown. */
  static from(thrown: unknown): WebloraError {
    if (thrown instanceof WebloraError) return thrown;
    if (thrown instanceof Error || (typeof DOMException !== "undefined" && thrown instanceof DOMException)) {
      const { code, causes } = thrown as { code?: unknown; causes?: unknown };
      if (typeof code === "string") return new WebloraError(code as ErrorCode, thrown.message, Array.isArray(causes) ? causes.map(String) : []);
      return new WebloraError(codeOfName(thrown.name), thrown.message || thrown.name, [`${thrown.name}: ${thrown.message}`]);
    }
    return new WebloraError("io", String(thrown));
  }
}

/** The code of an exception of the platform. A trap of the wasm module is a bug of ours and leaves it unusable. */
function codeOfName(name: string): ErrorCode {
  switch (name) {
    case "QuotaExceededError":
      return "quota";
    case "SecurityError":
    case "NotAllowedError":
    case "InvalidStateError":
      return "storage_denied";
    case "AbortError":
      return "aborted";
    case "RuntimeError":
      return "panic";
    default:
      return "io";
  }
}
