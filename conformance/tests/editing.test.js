// Documents travel: created, found, edited from both ends, merged after time offline.

import assert from "node:assert/strict";
import { after, before, describe } from "node:test";

import { eachGeneration } from "../lib/cases.js";
import { converged, GENERATIONS, packagesOf } from "../lib/client.js";
import { Server } from "../lib/server.js";
import { until } from "../lib/wait.js";

const UNAVAILABLE_MS_MAX = 2_000;
const CHANGES = 10_000;

describe("editing", { concurrency: 4 }, () => {
  let server;
  const here = () => server;
  let typed;
  before(async () => {
    server = await Server.start();
    typed = await typedDocument();
  });
  after(() => server.dispose());

  eachGeneration("create, find, and edit both ways", here, async (bench) => {
    const [alice, bob] = [await bench.client(), await bench.client()];
    const hers = alice.create({ title: "shopping", from: "alice" });
    await alice.saved(hers);
    const his = await bob.find(hers.url);
    assert.deepEqual(bob.json(his), { title: "shopping", from: "alice" });

    his.change((doc) => (doc.from = "bob"));
    await alice.sees(hers, "bob's edit", (doc) => doc.from === "bob");
    hers.change((doc) => (doc.title = "party"));
    await bob.sees(his, "alice's edit", (doc) => doc.title === "party");
  });

  eachGeneration("an empty document syncs", here, async (bench) => {
    const [alice, bob] = [await bench.client(), await bench.client()];
    const hers = alice.create();
    await alice.saved(hers);
    const his = await bob.find(hers.url);
    assert.deepEqual(bob.json(his), {});
    his.change((doc) => (doc.first = true));
    await alice.sees(hers, "the first edit of the empty document", (doc) => doc.first === true);
  });

  eachGeneration("three clients with concurrent edits of text, maps, lists and counters converge", here, async (bench) => {
    const clients = [await bench.client(), await bench.client(), await bench.client()];
    const { A } = clients[0];
    const first = clients[0].create({ text: "-", map: {}, list: ["start"], count: new A.Counter(0) });
    await clients[0].saved(first);
    const handles = [first, await clients[1].find(first.url), await clients[2].find(first.url)];

    // Nothing is awaited between these edits, so each client writes before it hears of the others.
    for (let round = 0; round < 20; round++) {
      handles.forEach((handle, i) =>
        handle.change((doc) => {
          clients[i].A.splice(doc, ["text"], 0, 0, "abc"[i]);
          doc.map[`${i}/${round}`] = round;
          doc.map.contested = i;
          doc.list.push(`${i}/${round}`);
          doc.count.increment(1);
        }),
      );
    }

    await converged(clients.map((client, i) => [client, handles[i]]));
    const docs = handles.map((handle, i) => clients[i].json(handle));
    assert.deepEqual(docs[1], docs[0]);
    assert.deepEqual(docs[2], docs[0]);
    assert.equal(docs[0].count, 60);
    assert.equal(docs[0].list.length, 61);
    assert.equal(Object.keys(docs[0].map).length, 61);
    for (const letter of "abc") assert.equal([...docs[0].text].filter((char) => char === letter).length, 20);
  });

  eachGeneration("offline edits merge after reconnect", here, async (bench) => {
    const [alice, bob] = [await bench.client(), await bench.client()];
    const hers = alice.create({ text: "hello", by: {} });
    await alice.saved(hers);
    const his = await bob.find(hers.url);

    await alice.goOffline();
    await bob.goOffline();
    hers.change((doc) => {
      alice.A.splice(doc, ["text"], 0, 0, "Alice: ");
      doc.by.alice = true;
    });
    his.change((doc) => {
      bob.A.splice(doc, ["text"], 5, 0, " (Bob)");
      doc.by.bob = true;
    });
    await Promise.all([alice.goOnline(), bob.goOnline()]);

    const merged = { text: "Alice: hello (Bob)", by: { alice: true, bob: true } };
    const both = (doc) => doc.by.alice && doc.by.bob;
    assert.deepEqual(await alice.sees(hers, "both offline edits", both), merged);
    assert.deepEqual(await bob.sees(his, "both offline edits", both), merged);
  });

  eachGeneration("an unknown document is unavailable promptly, and arrives once another client brings it", here, async (bench) => {
    const alice = await bench.client({ offline: true });
    const bob = await bench.client();
    const hers = alice.create({ made: "offline" });

    const asked = Date.now();
    assert.ok(await bob.isUnavailable(hers.url));
    assert.ok(Date.now() - asked < UNAVAILABLE_MS_MAX, `took ${Date.now() - asked} ms`);

    await alice.goOnline();
    const his = await until("the document's arrival", () => bob.find(hers.url).catch(() => undefined));
    assert.deepEqual(bob.json(his), { made: "offline" });
    his.change((doc) => (doc.seen = true));
    await alice.sees(hers, "the late reader's edit", (doc) => doc.seen === true);
  });

  eachGeneration("presence reaches the document's other readers, once and in order, and nobody else", here, async (bench) => {
    const [alice, bob, carol, outsider] = await Promise.all([1, 2, 3, 4].map(() => bench.client()));
    const hers = alice.create({ room: "kitchen" });
    await alice.saved(hers);
    const others = [[bob, await bob.find(hers.url)], [carol, await carol.find(hers.url)]];
    const heard = new Map([[alice, hers], ...others].map(([client, handle]) => [client, listen(handle)]));
    let overheard = 0;
    outsider.adapter.on("message", (message) => message.type === "ephemeral" && overheard++);

    const cursors = [{ at: 1 }, { at: 2 }, { at: 3, name: "alice" }];
    for (const cursor of cursors) hers.broadcast(cursor);
    for (const [client] of others) await until("alice's presence", () => heard.get(client).length >= cursors.length);
    // Bob's answer comes after whatever echo the server might have sent to alice.
    others[0][1].broadcast({ from: "bob" });
    await until("bob's presence", () => heard.get(alice).length > 0 && heard.get(carol).length > cursors.length);

    assert.deepEqual(heard.get(alice), [{ from: "bob" }]);
    assert.deepEqual(heard.get(bob), cursors);
    assert.deepEqual(heard.get(carol), [...cursors, { from: "bob" }]);
    assert.equal(overheard, 0);
  });

  eachGeneration("a document of 10,000 changes is pushed and pulled", here, async (bench) => {
    const [alice, bob] = [await bench.client(), await bench.client()];
    const hers = alice.create();
    hers.update((doc) => alice.A.loadIncremental(doc, typed));
    assert.equal(alice.json(hers).text.length, CHANGES);
    await alice.saved(hers, 20_000);

    const his = await bob.find(hers.url);
    await bob.sees(his, "all of the text", (doc) => doc.text.length === CHANGES);
    await converged([[alice, hers], [bob, his]]);
    assert.equal(bob.json(his).text, alice.json(hers).text);
    assert.ok(bob.A.getAllChanges(bob.doc(his)).length >= CHANGES);
    his.change((doc) => bob.A.splice(doc, ["text"], 0, 1, "!"));
    await alice.sees(hers, "an edit of the large document", (doc) => doc.text.startsWith("!"));
  });
});

/** A document whose text was typed one character, one change, at a time. Written once: it is the costly part. */
async function typedDocument() {
  const { Automerge: A } = await packagesOf(GENERATIONS[0]);
  let doc = A.from({ text: "" });
  for (let i = 0; i < CHANGES; i++) doc = A.change(doc, (draft) => A.splice(draft, ["text"], i, 0, String(i % 10)));
  return A.save(doc);
}

function listen(handle) {
  const messages = [];
  handle.on("ephemeral-message", ({ message }) => messages.push(message));
  return messages;
}
