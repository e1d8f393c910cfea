/** The modules of a run of MultiLoRA, watched while it trains. */

import { touch, type Run } from "../state";
import { trainer } from "../trainer";

/** Milliseconds between two questions at least. */
const PACE = 1000;

let askedAt = 0;
let asking = false;

/** Asks for the modules' scales after a step, where the run has any. */
export async function watchModules(run: Run): Promise<void> {
  if (asking || run.config["method"] !== "multilora" || Date.now() - askedAt < PACE) return;
  asking = true;
  try {
    const scales = await (await trainer()).moduleScales();
    if (run.state === "running") run.series.putModules(run.step, scales);
    touch("runs");
  } catch {
    // A lost device or a run that has just ended: the run's own events tell of it.
  } finally {
    askedAt = Date.now();
    asking = false;
  }
}
