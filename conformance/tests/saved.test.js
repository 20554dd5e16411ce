// "Saved on my server": what an app learns about the heads that the server holds.

import assert from "node:assert/strict";
import { after, before, describe } from "node:test";

import { eachGeneration } from "../lib/cases.js";
import { Server } from "../lib/server.js";
import { until } from "../lib/wait.js";

describe("saved", { concurrency: 4 }, () => {
  let server;
  const here = () => server;
  before(async () => (server = await Server.start()));
  after(() => server.dispose());

  eachGeneration("an app is told when its edits are on the server, and not while it is offline", here, async (bench) => {
    const alice = await bench.client();
    const storageId = alice.serverStorageId();
    assert.match(String(storageId), /./, "the server names its storage id in the greeting");
    const hers = alice.create({ n: 0 });
    await alice.saved(hers);

    const told = [];
    hers.on("remote-heads", (event) => told.push(event));
    hers.change((doc) => (doc.n = 1));
    assert.ok(!alice.isSaved(hers), "saved before the server can have heard of the edit");
    await alice.saved(hers);
    assert.ok(told.some((event) => event.storageId === storageId), "no remote-heads event");
    assert.deepEqual(alice.hexHeads(told.at(-1).heads), alice.heads(hers));

    await alice.goOffline();
    hers.change((doc) => (doc.n = 2));
    assert.ok(!alice.isSaved(hers));
    await alice.goOnline();
    await alice.saved(hers);
  });

  eachGeneration("who subscribes to the server's storage id gets its heads, in this generation's encoding", here, async (bench) => {
    const [alice, bob] = [await bench.client(), await bench.client({ repo: { enableRemoteHeadsGossiping: true } })];
    const storageId = bob.serverStorageId();
    const received = [];
    bob.adapter.on("message", (message) => message.type === "remote-heads-changed" && received.push(message));
    bob.repo.subscribeToRemotes([storageId]);

    const hers = alice.create({ n: 0 });
    await alice.saved(hers);
    const his = await bob.find(hers.url);
    hers.change((doc) => (doc.n = 1));
    await bob.sees(his, "the edit", (doc) => doc.n === 1);
    const encoded = (handle) => [...handle.heads()].sort().join();
    await until("the server's heads in a remote-heads-changed message", () =>
      received.some(({ documentId, newHeads }) => documentId === his.documentId && [...newHeads[storageId].heads].sort().join() === encoded(his)),
    );
    assert.ok(bob.isSaved(his));
  });
});
