// Apps of different ages share documents: what one generation writes, the others read and edit.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { oneCase } from "../lib/cases.js";
import { converged, GENERATIONS } from "../lib/client.js";
import { Server } from "../lib/server.js";

describe("generations", { concurrency: 4 }, () => {
  let server;
  const here = () => server;
  before(async () => (server = await Server.start()));
  after(() => server.dispose());

  for (const generation of GENERATIONS) {
    test(`[${generation}] the packages are of this generation`, async () => {
      const require = createRequire(path.resolve(import.meta.dirname, `../clients/v${generation}/index.js`));
      for (const name of ["automerge-repo", "automerge-repo-network-websocket"]) {
        const entry = require.resolve(`@automerge/${name}`);
        const root = entry.slice(0, entry.lastIndexOf(`${path.sep}dist${path.sep}`));
        assert.equal(JSON.parse(await readFile(path.join(root, "package.json"), "utf8")).version, generation);
      }
    });
  }

  for (const writer of GENERATIONS) {
    for (const reader of GENERATIONS.filter((generation) => generation !== writer)) {
      oneCase(reader, `reads and edits what ${writer} wrote`, here, async (bench) => {
        const alice = await bench.client({ generation: writer });
        const hers = alice.create({ text: "written", tags: ["old"], deep: { map: { yes: true } }, when: new Date(0) });
        for (let i = 0; i < 50; i++) hers.change((doc) => alice.A.splice(doc, ["text"], doc.text.length, 0, String(i % 10)));
        await alice.saved(hers);

        const bob = await bench.client();
        const his = await bob.find(hers.url);
        await converged([[alice, hers], [bob, his]]);
        assert.deepEqual(bob.json(his), alice.json(hers));
        his.change((doc) => {
          bob.A.splice(doc, ["text"], 0, 0, "re");
          doc.tags.push("new");
        });
        await alice.sees(hers, `an edit by ${reader}`, (doc) => doc.text.startsWith("rewritten") && doc.tags.length === 2);

        // The writer has gone and the document comes from the server alone.
        await bob.saved(his);
        await alice.close();
        const carol = await bench.client();
        const theirs = await carol.find(hers.url);
        await converged([[bob, his], [carol, theirs]]);
      });
    }
  }

  oneCase(GENERATIONS.at(-1), "all generations edit one document at the same time", here, async (bench) => {
    const clients = await Promise.all(GENERATIONS.map((generation) => bench.client({ generation })));
    const first = clients[0].create({ list: [] });
    await clients[0].saved(first);
    const handles = await Promise.all(clients.map((client) => client.find(first.url)));
    for (let round = 0; round < 10; round++) handles.forEach((handle, i) => handle.change((doc) => doc.list.push(`${i}/${round}`)));
    await converged(clients.map((client, i) => [client, handles[i]]));
    assert.equal(clients[0].json(first).list.length, 10 * GENERATIONS.length);
  });
});
