// What automerge-repo's own adapter tests import from "vitest", on node:test.

import assert from "node:assert/strict";
import { describe, it as nodeIt } from "node:test";

const CASE_MS_MAX = 4_000;

let generation;

/** Cases declared from now on carry this generation in their name. */
export function declareFor(name) {
  generation = name;
}

export { describe };

export const it = (name, body) => nodeIt(`[${generation}] network adapter: ${name}`, { timeout: CASE_MS_MAX }, body);

export const expect = (actual) => ({
  toMatchObject(expected) {
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(actual[key], value, key);
  },
});
