// How a case is written down: it shares the server of its file, and what it opens is closed when it ends.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Client } from "../../lib/client.js";
import { Network } from "./network.js";
import { Server } from "./server.js";

const CASE_MS_MAX = 45_000;

/** The server of a file, the network around it, and what the current case has opened. */
class Bench {
  #opened = [];

  constructor(owner) {
    this.network = Network.ofRun();
    this.owner = this.network[owner];
  }

  /** A stock Repo of automerge-repo 2.5.6 with this token. */
  async repo(token) {
    return this.repoAt(this.server.urlFor(token));
  }

  /** A stock Repo that connects to this address. */
  async repoAt(url) {
    const { port } = this.server;
    const client = await Client.connect("2.5.6", { port, urlFor: () => url }, { direct: true });
    this.#opened.push(client);
    return client;
  }

  /** Leaves no window open, no request waiting and no Repo connected for the next case. */
  async tidy() {
    await Promise.all(this.#opened.splice(0).map((client) => client.close()));
    await this.server.closePairing();
    for (const { id } of await this.server.pending()) await this.server.cli("devices", "deny", id);
  }
}

/**
 * Declares the cases of a file, one after the other on one server, which belongs to `owner`: `declare` gets the
 * function that declares one. The last case is that no secret was told to anybody.
 */
export function cases(about, owner, declare) {
  describe(about, () => {
    const bench = new Bench(owner);
    before(async () => (bench.server = await Server.start(bench.network, bench.owner)));
    after(() => bench.server?.dispose());

    declare((name, body) =>
      test(`[pds] ${name}`, { timeout: CASE_MS_MAX }, async () => {
        try {
          await body(bench);
        } finally {
          await bench.tidy();
        }
      }),
    );

    test(`[pds] ${about}: no token, ticket or proof stands in the log, nor in the audit`, async () => {
      const { server } = bench;
      const audit = await server.cli("audit", "--json");
      assert.ok(server.secrets.size > 0 && server.output.length > 0 && audit.length > 2, "there was nothing to find");
      assert.deepEqual(server.secrets.foundIn(server.output), [], "in the log");
      assert.deepEqual(server.secrets.foundIn(audit), [], "in the audit");
    });
  });
}
