/** What a run will take: memory from the plan, time from a measured step. */

import type { Plan } from "weblora";
import type { FormSettings } from "../lib/settings";
import { announce } from "../lib/announce";
import { debounce } from "../lib/dom";
import { duration } from "../lib/format";
import { problem } from "../lib/problem";
import { exclusive, newest } from "../lib/queue";
import { readPreference, writePreference } from "../lib/theme";
import { chosenRows, get, isLocked, isTraining, runSettings, update } from "../state";
import { trainer } from "../trainer";

const latest = newest<void>();

/** Plans again, a moment after the last change. Nothing can be started meanwhile: what is shown is of other settings. */
export function replan(): void {
  if (get().base.status === "ready" && !isLocked()) update("plan", { status: "busy" });
  soon();
}

const soon = debounce(() => void planNow(), 200);

async function planNow(): Promise<void> {
  if (get().base.status !== "ready" || isLocked()) return;
  await latest(async () => {
    try {
      const made = await trainer();
      const plan: Plan = await made.plan(runSettings(), chosenRows()?.train);
      update("plan", { status: "ready", plan, problem: null, stepSeconds: remembered(runSettings()) });
    } catch (error) {
      update("plan", { status: "failed", plan: null, problem: problem(error), stepSeconds: null });
    }
  });
}

/** Runs two steps on the GPU and throws them away; the second one is what a step takes here. */
export async function measure(): Promise<void> {
  const { base, plan } = get();
  const train = chosenRows()?.train;
  if (base.status !== "ready" || !train || isTraining() || plan.measuring) return;
  update("plan", { measuring: true });
  announce("Measuring a step.");
  try {
    const made = await trainer();
    const settings = runSettings();
    const seconds = await exclusive(async () => {
      const run = made.train({ ...shortened(settings), steps: 2 }, train, { job: "measure" });
      let last = 0;
      for await (const event of run) if (event.event === "step") last = event.tokens / event.tokensPerS;
      await run.done;
      return last;
    });
    remember(settings, seconds);
    update("plan", { stepSeconds: seconds, problem: null });
    announce(`A step takes ${duration(seconds)}.`);
  } catch (error) {
    update("plan", { problem: problem(error) });
  } finally {
    update("plan", { measuring: false });
  }
}

/** Without what makes a run long or look at itself. */
function shortened(settings: FormSettings): FormSettings {
  const drop = ["epochs", "steps", "evalEvery", "evalSplit", "patience", "saveEvery", "warmup", "links", "knots"];
  return Object.fromEntries(Object.entries(settings).filter(([key]) => !drop.includes(key)));
}

const KEY = "weblora.step-seconds";
const LIMIT = 40;

/** Remembers what a step took, for the next estimate of the same shapes. */
export function remember(settings: FormSettings, seconds: number): void {
  if (!(seconds > 0)) return;
  const known = read().filter(([shape]) => shape !== shapeOf(settings));
  known.push([shapeOf(settings), seconds]);
  writePreference(KEY, JSON.stringify(known.slice(-LIMIT)));
}

function remembered(settings: FormSettings): number | null {
  return read().find(([shape]) => shape === shapeOf(settings))?.[1] ?? null;
}

function read(): [string, number][] {
  try {
    const saved: unknown = JSON.parse(readPreference(KEY) ?? "[]");
    return Array.isArray(saved) ? (saved as [string, number][]) : [];
  } catch {
    return [];
  }
}

/** All that decides how long a step takes. */
function shapeOf(settings: FormSettings): string {
  const { base, device, form } = get();
  const irrelevant = ["lr", "steps", "epochs", "schedule", "warmup", "seed", "alpha", "evalEvery", "evalSplit", "patience", "saveEvery", "name", "out"];
  // A default that is written out is still the default.
  const set = ([key, value]: [string, unknown]) =>
    value !== null && !irrelevant.includes(key) && JSON.stringify(form.table.find((row) => row.key === key)?.default) !== JSON.stringify(value);
  const shape = Object.entries(settings).filter(set).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([base.info?.contentHash, device.adapter?.name, shape]);
}
