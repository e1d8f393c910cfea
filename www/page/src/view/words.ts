/** States in words. */

import { count, duration, plural } from "../lib/format";
import { get, type Run } from "../state";

/** A run's state for people. */
export function stateInWords(run: Run): string {
  const at = `step ${count(run.step)} of ${count(run.total)}`;
  switch (run.state) {
    case "waiting":
      return run.step > 0 ? `waiting at ${at}` : "waiting";
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
      return `done, ${plural(run.step, "step")} in ${duration(run.seconds)}`;
    case "failed":
      return `failed at ${at}`;
  }
}

/** How the jobs that train are getting on: `3 of 9 jobs done, best held-out loss 0.1234`. */
export function jobsInWords(set: string): string {
  const { list } = get().runs;
  const all = list.filter(({ job }) => job?.set === set);
  const over = all.filter(({ state }) => state === "done" || state === "stopped" || state === "failed");
  const lead = all.find(({ job }) => job?.best);
  const best = lead ? `, best ${lead.name}` : "";
  return `${count(over.length)} of ${plural(all.length, "job")} over${best}`;
}
