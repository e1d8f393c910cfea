/** Leaving the page with steps that are not saved. */

import { activeRun, get, isJobUnderWay } from "../state";

/** Lets the browser ask before the page goes, where that would lose steps. */
export function warnBeforeLeaving(): void {
  addEventListener("beforeunload", (event) => {
    const active = activeRun();
    const open = [...(active ? [active] : []), ...get().runs.list.filter(isJobUnderWay)];
    if (open.some(({ step, savedStep }) => step > savedStep)) event.preventDefault();
  });
}
