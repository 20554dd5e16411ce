// The server stops and starts again under connected clients; what it acknowledged is still there.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { eachGeneration } from "../lib/cases.js";
import { converged } from "../lib/client.js";
import { Server } from "../lib/server.js";

describe("restarts", { concurrency: 3 }, () => {
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    eachGeneration(`edits go on after ${signal} and a new start`, () => undefined, async (bench) => {
      const server = await Server.start();
      try {
        const clients = [];
        for (let i = 0; i < 3; i++) clients.push(await bench.client({ server, direct: true }));
        const first = clients[0].create({ list: [] });
        await clients[0].saved(first);
        const handles = await Promise.all(clients.map((client) => client.find(first.url)));
        const write = (text) => handles.forEach((handle, i) => handle.change((doc) => doc.list.push(`${text} ${i}`)));

        write("before");
        await server.stop(signal);
        write("between");
        await server.startAgain();
        write("after");
        await Promise.all(clients.map((client) => client.connected()));
        write("later");
        await converged(clients.map((client, i) => [client, handles[i]]));
        assert.equal(clients[0].json(first).list.length, 12);
      } finally {
        await server.dispose();
      }
    });

    eachGeneration(`nothing acknowledged is lost by ${signal}`, () => undefined, async (bench) => {
      const server = await Server.start();
      try {
        const writer = await bench.client({ server, direct: true });
        const handles = Array.from({ length: 20 }, () => writer.create({ list: [] }));
        for (const handle of handles) await writer.saved(handle);

        // Every acknowledgement is noted as it comes; edits are on their way when the server dies.
        const acknowledged = new Map();
        const storageId = writer.serverStorageId();
        for (const handle of handles) {
          handle.on("remote-heads", ({ heads }) => acknowledged.set(handle, writer.hexHeads(heads)));
        }
        for (let round = 0; round < 5; round++) handles.forEach((handle) => handle.change((doc) => doc.list.push(round)));
        await writer.saved(handles.at(-1));
        handles.forEach((handle) => handle.change((doc) => doc.list.push("in flight")));
        await server.stop(signal);
        await writer.close();
        assert.ok(acknowledged.size > 0, "no edit was acknowledged at all");

        await server.startAgain();
        const reader = await bench.client({ server, direct: true });
        assert.equal(reader.serverStorageId(), storageId, "the server's storage id must outlive a restart");
        for (const [handle, heads] of acknowledged) {
          const found = await reader.find(handle.url);
          const kept = new Set(history(reader, found));
          for (const head of heads) assert.ok(kept.has(head), `${handle.url} lost ${head}`);
        }
      } finally {
        await server.dispose();
      }
    });
  }
});

function history(client, handle) {
  return client.A.getAllChanges(client.doc(handle)).map((change) => client.A.decodeChange(change).hash);
}
