/** The main thread's work, from Chromium's own trace. */

import type { Browser, Page } from "@playwright/test";

interface TraceEvent {
  name: string;
  pid: number;
  tid: number;
  ts: number;
  dur?: number;
  tdur?: number;
  args?: { name?: string; data?: { url?: string } };
}

/** The longest tasks of the page's main thread, in milliseconds. */
export interface Tasks {
  count: number;
  /** By the thread's own clock: what the task cost. */
  busy: number;
  /** By the wall clock: on two cores that a software GPU fills, the system may stop a thread in the middle of a task. */
  wall: number;
}

/** Begins to trace. */
export async function startTrace(browser: Browser, page: Page): Promise<void> {
  await browser.startTracing(page, { categories: ["toplevel", "disabled-by-default-devtools.timeline", "__metadata"] });
}

/** Ends the trace and looks at the tasks. */
export async function stopTrace(browser: Browser): Promise<Tasks> {
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString()) as { traceEvents: TraceEvent[] };
  const mains = new Set(traceEvents.filter(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain").map(({ pid, tid }) => `${pid} ${tid}`));
  const tasks = traceEvents.filter(({ name, pid, tid, dur }) => name.endsWith("RunTask") && dur !== undefined && mains.has(`${pid} ${tid}`));
  const longest = (key: "dur" | "tdur") => Math.max(0, ...tasks.map((task) => (task[key] ?? 0) / 1000));
  return { count: tasks.length, busy: longest("tdur"), wall: longest("dur") };
}
