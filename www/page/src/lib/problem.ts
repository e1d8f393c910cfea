/** Errors as the page shows them. */

import { LABELS } from "../data/words";
import { camel } from "./settings";

/** What went wrong, for people. */
export interface Problem {
  /** Stable short name: the crate's codes, and a few of the page's own. */
  code: string;
  /** One sentence. */
  message: string;
  /** The setting that is wrong, when it is one. */
  key?: string;
  /** What lies behind it, outermost first. */
  causes: string[];
}

/** A problem that the page itself finds. */
export class PageError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Makes a problem of whatever was thrown. */
export function problem(error: unknown): Problem {
  if (!(error instanceof Error)) return { code: "internal", message: String(error), causes: [] };
  const { code, causes, key } = error as Error & { code?: unknown; causes?: unknown; key?: unknown };
  const found: Problem = {
    code: typeof code === "string" ? code : error.name === "AbortError" ? "aborted" : "internal",
    message: pageWords(error.message),
    causes: Array.isArray(causes) ? causes.map(String).filter((cause) => cause !== error.message) : [],
  };
  const named = typeof key === "string" ? key : settingIn(found);
  if (named !== undefined) found.key = camel(named);
  return found;
}

/** Messages about a setting begin with its name: "`rank`: is 0; give …". */
function settingIn({ code, message }: Problem): string | undefined {
  return code === "config" ? /^`([a-z0-9-]+)`:/.exec(message)?.[1] : undefined;
}

/** The crate's hints name flags of the command line and calls of the API; here they are fields and buttons. */
export function pageWords(message: string): string {
  return message
    .replace(/;? ?(?:use|call) (?:loadBase|train|startJobs) first/g, "; do that first")
    .replace(/, or start anew without --resume/g, ", or start anew")
    .replace(/--([a-z][a-z-]*)/g, "$1")
    .replace(/\bmaxTokens\b/g, "most tokens");
}

/** A warning about rows or a run as the page has it: settings by what their fields are called. */
export function inWords(text: string): string {
  const named = text.replace(/`([a-z][a-z-]*)`|--([a-z][a-z-]*)/g, (found, quoted: string | undefined, flag: string | undefined) => {
    const label = LABELS[camel(quoted ?? flag ?? "")];
    return label === undefined ? found.replace(/^--/, "") : `“${label}”`;
  });
  return named.replace(/cut to “Longest row, in tokens” tokens/, "longer than “Longest row, in tokens”, and cut");
}

/** Whether the user asked for it to end. */
export const isAbort = (error: unknown): boolean => ["aborted", "stopped"].includes(problem(error).code);

/** The message without the setting's name, to stand beside that setting. */
export const withoutKey = (message: string): string => message.replace(/^`[a-z0-9-]+`:\s*/, "").replace(/^./, (c) => c.toUpperCase());
