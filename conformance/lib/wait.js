// Waiting for a condition with a deadline: no test sleeps for a guessed time.

import { setTimeout as pause } from "node:timers/promises";

const POLL_MS = 10;

/**
 * The first truthy value of `condition` (which may be async).
 * Throws after `within` milliseconds, naming `what` was awaited.
 */
export async function until(what, condition, within = 10_000) {
  const deadline = Date.now() + within;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${within} ms: ${what}`);
    await pause(POLL_MS);
  }
}
