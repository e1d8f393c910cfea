/** The one Trainer of the page: its Worker owns the wasm module and the GPU device. */

import { Trainer } from "weblora";
import { alertUser } from "./lib/announce";
import { problem, PageError, type Problem } from "./lib/problem";
import { get, update } from "./state";

let current: Promise<Trainer> | null = null;

/** The Trainer, made when it is first needed. */
export function trainer(): Promise<Trainer> {
  current ??= create();
  return current;
}

async function create(): Promise<Trainer> {
  try {
    const asked = new URLSearchParams(location.search);
    const limit = Number(asked.get("max-bytes"));
    const made = await Trainer.create({ ...(limit > 0 ? { maxBytes: limit } : {}), ...(asked.get("subgroups") === "off" ? { subgroups: false } : {}) });
    update("device", { status: "ready", adapter: made.adapter, problem: null });
    return made;
  } catch (error) {
    current = null;
    update("device", { status: "missing", problem: problem(error) });
    throw error;
  }
}

/** Asks the browser whether it has WebGPU. */
export async function checkSupport(): Promise<void> {
  try {
    const support = await Trainer.support();
    update("device", { support, status: support.webgpu ? "ready" : "missing" });
  } catch (error) {
    update("device", { status: "missing", problem: problem(error) });
  }
}

/** Shows an error above everything else and reads it out. */
export function report(error: unknown): Problem {
  const found = problem(error);
  const hint = found.code === "internal" && !(error instanceof PageError) ? " This should not happen; reload the page." : "";
  update("notice", { kind: "error", text: found.message + hint, detail: found.causes });
  alertUser(found.message);
  return found;
}

/** Takes the message away. */
export function dismissNotice(): void {
  if (get().notice.kind !== "none") update("notice", { kind: "none", text: "", detail: [] });
}
