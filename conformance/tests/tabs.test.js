// Browser tabs: several Repos of one profile, sharing a storage, at times even a peer id.

import assert from "node:assert/strict";
import { after, before, describe } from "node:test";

import { eachGeneration } from "../lib/cases.js";
import { converged } from "../lib/client.js";
import { Server } from "../lib/server.js";
import { MemoryStorage } from "../lib/storage.js";

describe("tabs", { concurrency: 4 }, () => {
  let server;
  const here = () => server;
  before(async () => (server = await Server.start()));
  after(() => server.dispose());

  eachGeneration("two tabs with one storage stay in step with each other and another device", here, async (bench) => {
    const storage = new MemoryStorage();
    const [left, right, device] = [await bench.client({ repo: { storage } }), await bench.client({ repo: { storage } }), await bench.client()];
    assert.equal(await left.repo.storageId(), await right.repo.storageId());

    const first = left.create({ list: [] });
    await left.saved(first);
    const trio = [[left, first], [right, await right.find(first.url)], [device, await device.find(first.url)]];
    for (let round = 0; round < 10; round++) {
      trio.forEach(([, handle], i) => handle.change((doc) => doc.list.push(`${i}/${round}`)));
    }
    await converged(trio);
    assert.equal(left.json(first).list.length, 30);

    // One tab closes; the other keeps its service, and a new tab starts from the stored sync state.
    await left.close();
    trio[2][1].change((doc) => doc.list.push("after the tab closed"));
    await right.sees(trio[1][1], "the device's edit", (doc) => doc.list.length === 31);
    const again = await bench.client({ repo: { storage } });
    const reopened = await again.find(first.url);
    await again.sees(reopened, "everything in the new tab", (doc) => doc.list.length === 31);
    reopened.change((doc) => doc.list.push("from the new tab"));
    await converged([trio[1], trio[2], [again, reopened]]);
  });

  eachGeneration("two clients with one peer id both keep their service", here, async (bench) => {
    const repo = { peerId: `twin-${bench.generation}` };
    const [left, right] = [await bench.client({ repo }), await bench.client({ repo })];
    const device = await bench.client();
    const hers = device.create({ list: [] });
    await device.saved(hers);
    const trio = [[left, await left.find(hers.url)], [right, await right.find(hers.url)], [device, hers]];

    for (const [i, [, writer]] of trio.entries()) {
      writer.change((doc) => doc.list.push(i));
      for (const [client, handle] of trio) {
        await client.sees(handle, `the edit of client ${i}`, (doc) => doc.list.includes(i));
      }
    }
    // When one of the twins leaves, the other one stays.
    await right.close();
    hers.change((doc) => doc.list.push("alone"));
    await left.sees(trio[0][1], "an edit after the twin left", (doc) => doc.list.includes("alone"));
  });
});
