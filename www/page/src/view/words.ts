/** States in words. */

import { count, duration } from "../lib/format";
import type { Run } from "../state";

/** A run's state for people. */
export function stateInWords(run: Run): string {
  const at = `step ${count(run.step)} of ${count(run.total)}`;
  switch (run.state) {
    case "starting":
      return "preparing…";
    case "running":
      return at;
    case "paused":
      return `paused at ${at}`;
    case "stopping":
      return "stopping after this step…";
    case "stopped":
      return `stopped at ${at}`;
    case "done":
      return `done, ${count(run.step)} steps in ${duration(run.seconds)}`;
    case "failed":
      return `failed at ${at}`;
  }
}
