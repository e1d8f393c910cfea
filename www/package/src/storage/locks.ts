// Web Locks: what one tab writes, no other tab writes or removes.

import { WebloraError } from "../errors.js";

/** Runs `work` while no other tab holds the lock. */
export function exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
  return navigator.locks.request(`weblora:${name}`, work) as Promise<T>;
}

/** Takes a lock until the returned function is called; fails at once when another holder excludes it. */
export async function hold(name: string, mode: LockMode, busy: string): Promise<() => void> {
  return await new Promise<() => void>((taken, refused) => {
    void navigator.locks
      .request(`weblora:${name}`, { mode, ifAvailable: true }, (lock) => {
        if (!lock) {
          refused(new WebloraError("busy", busy));
          return;
        }
        return new Promise<void>((release) => taken(release));
      })
      .catch(refused);
  });
}
