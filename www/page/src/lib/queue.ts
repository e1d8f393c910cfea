/** One call to the Worker at a time: a second one would be refused as busy. */

let tail: Promise<unknown> = Promise.resolve();

/** Runs `work` after everything that was queued before it. */
export function exclusive<T>(work: () => Promise<T>): Promise<T> {
  const result = tail.then(work, work);
  tail = result.catch(() => undefined);
  return result;
}

/** As {@link exclusive}, for work that only its newest request is worth doing: older ones that have not begun resolve to `null`. */
export function newest<T>(): (work: () => Promise<T>) => Promise<T | null> {
  let latest = 0;
  return (work) => {
    latest += 1;
    const mine = latest;
    return exclusive(async () => (mine === latest ? work() : null));
  };
}
