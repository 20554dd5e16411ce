// How a conformance case is written down: once, run for each generation of stock clients.

import { test } from "node:test";

import { Client, GENERATIONS } from "./client.js";

const CASE_MS_MAX = 30_000;

/** Tokens and clients of one case; everything is closed when the case ends. */
class Bench {
  #opened = [];

  constructor(generation, server) {
    this.generation = generation;
    this.server = server;
  }

  /** A client of this case's generation, or of `options.generation`. */
  async client({ generation = this.generation, server = this.server, ...options } = {}) {
    const client = await Client.connect(generation, server, options);
    this.#opened.push(client);
    return client;
  }

  async close() {
    await Promise.all(this.#opened.map((client) => client.close()));
  }
}

/**
 * Declares the case `name` for every generation. `serverOf` gives the server when the case runs.
 * The name is the case's id in expected.toml.
 */
export function eachGeneration(name, serverOf, body) {
  for (const generation of GENERATIONS) oneCase(generation, name, serverOf, body);
}

/** Declares the case `name` for one generation. */
export function oneCase(generation, name, serverOf, body) {
  test(`[${generation}] ${name}`, { timeout: CASE_MS_MAX }, async () => {
    const bench = new Bench(generation, serverOf());
    try {
      await body(bench);
    } finally {
      await bench.close();
    }
  });
}
