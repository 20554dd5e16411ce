// Who may come in, and how far: tokens, groups, read-only sessions.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import WebSocket from "ws";

import { eachGeneration } from "../lib/cases.js";
import { Server } from "../lib/server.js";
import { MemoryStorage } from "../lib/storage.js";
import { until } from "../lib/wait.js";

const OTHER_GROUP = "test.example.letters";

describe("access", { concurrency: 4 }, () => {
  let server;
  let otherGroup;
  let readOnly;
  const here = () => server;
  before(async () => {
    server = await Server.start();
    otherGroup = await server.mintToken({ group: OTHER_GROUP });
    readOnly = await server.mintToken({ readOnly: true });
  });
  after(() => server.dispose());

  eachGeneration("a document of another group is unavailable, like one that does not exist", here, async (bench) => {
    const [alice, stranger] = [await bench.client(), await bench.client({ token: otherGroup })];
    const nobodyHas = await bench.client({ offline: true });
    const hers = alice.create({ secret: 42 });
    await alice.saved(hers);
    assert.ok(await stranger.isUnavailable(hers.url));
    assert.ok(await stranger.isUnavailable(nobodyHas.create().url));
    assert.notEqual(alice.serverStorageId(), stranger.serverStorageId());
  });

  eachGeneration("one document id in two groups is two documents", here, async (bench) => {
    // A device carries the document from one group to the other, as an app that changes its account would.
    const storage = new MemoryStorage();
    const carrier = await bench.client({ repo: { storage } });
    const alice = await bench.client();
    const original = carrier.create({ n: 0 });
    await carrier.saved(original);
    const hers = await alice.find(original.url);
    await until("the document in the storage", async () => (await storage.loadRange([original.documentId])).length > 0);
    await carrier.close();
    const moved = await bench.client({ repo: { storage }, token: otherGroup });
    const there = await moved.find(original.url);
    await moved.saved(there);

    there.change((doc) => (doc.there = true));
    hers.change((doc) => (doc.here = true));
    await moved.saved(there);
    await alice.saved(hers);
    const [freshHere, freshThere] = [await bench.client(), await bench.client({ token: otherGroup })];
    assert.deepEqual(freshHere.json(await freshHere.find(hers.url)), { n: 0, here: true });
    assert.deepEqual(freshThere.json(await freshThere.find(hers.url)), { n: 0, there: true });
  });

  eachGeneration("a read-only session reads, and nothing it writes reaches anybody or survives", here, async (bench) => {
    const [alice, reader] = [await bench.client(), await bench.client({ token: readOnly })];
    const hers = alice.create({ n: 0 });
    await alice.saved(hers);
    const copy = await reader.find(hers.url);
    assert.deepEqual(reader.json(copy), { n: 0 });
    const its = reader.create({ mine: true });
    copy.change((doc) => (doc.forbidden = true));

    // Alice's edits reach the reader after the reader's own attempts have been sent.
    for (let n = 1; n <= 3; n++) {
      hers.change((doc) => (doc.n = n));
      await reader.sees(copy, `edit ${n}`, (doc) => doc.n === n);
      copy.change((doc) => (doc.forbidden = n));
    }
    assert.equal(alice.json(hers).forbidden, undefined);
    const late = await bench.client();
    assert.deepEqual(late.json(await late.find(hers.url)), { n: 3 });
    assert.ok(await late.isUnavailable(its.url));
    hers.change((doc) => (doc.n = 4));
    await reader.sees(copy, "an edit after its forbidden ones", (doc) => doc.n === 4);
  });

  for (const [what, token] of [
    ["no token", undefined],
    ["garbage", "garbage"],
    ["a token with a wrong signature", "tampered"],
  ]) {
    test(`[raw] ${what} gets HTTP 401`, async () => {
      const { port, token: good } = server;
      const presented = token === "tampered" ? `${good.slice(0, -5)}${good.endsWith("AAAAA") ? "BBBBB" : "AAAAA"}` : token;
      for (const path of ["/", "/sync"]) {
        const query = presented === undefined ? "" : `?token=${presented}`;
        assert.equal(await upgrade(`ws://127.0.0.1:${port}${path}${query}`), 401);
      }
    });
  }

  test("[raw] a token is accepted in the query, as a bearer, and as a subprotocol, at / and at /sync", async () => {
    const { port, token } = server;
    for (const path of ["/", "/sync"]) {
      const url = `ws://127.0.0.1:${port}${path}`;
      assert.equal(await upgrade(`${url}?token=${token}`), 101);
      assert.equal(await upgrade(url, [], { headers: { authorization: `Bearer ${token}` } }), 101);
      assert.equal(await upgrade(url, [`groundmist.token.${token}`]), 101);
    }
  });
});

/** The HTTP status with which the server answers this WebSocket handshake. */
function upgrade(url, protocols, options) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols, options);
    socket.on("error", reject);
    socket.on("open", () => {
      socket.close();
      resolve(101);
    });
    socket.on("unexpected-response", (request, response) => {
      request.destroy();
      resolve(response.statusCode);
    });
  });
}
