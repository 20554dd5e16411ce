// docs/identity.md: its code is run as it stands there.

import assert from "node:assert/strict";

import { cases } from "../lib/cases.js";
import { withDocumentedModules } from "../lib/documentation.js";
import { GROUP } from "../lib/lives.js";
import { NodeApp } from "../lib/node-app.js";

/** Two Repos at these addresses see what the other one writes. */
async function inSync(bench, first, second) {
  const [phone, laptop] = [await bench.repoAt(first), await bench.repoAt(second)];
  const note = phone.create({ text: "by the book" });
  await phone.saved(note);
  const copy = await laptop.find(note.url);
  assert.equal(laptop.json(copy).text, "by the book");
}

cases("the code of docs/identity.md", "alice", (test) => {
  test("door A, as the page has it", (bench) =>
    withDocumentedModules(async ({ "authenticate.mjs": { authenticate } }) => {
      const { server, network, owner } = bench;
      const app = await NodeApp.signedIn(network, owner);
      server.secrets.add("access token of the PDS", app.accessToken);
      await assert.rejects(authenticate(app.session, server.url, GROUP), { code: "approval_required" });
      await server.openPairing();
      await assert.rejects(authenticate(app.session, server.url, GROUP), { code: "approval_required" });
      await server.approveOne();
      const { url, rootDocUrl } = await authenticate(app.session, server.url, GROUP);
      server.secrets.add("sync token", new URL(url).searchParams.get("token"));
      assert.equal(rootDocUrl, null);
      await inSync(bench, url, url);
    }));

  test("door B, as the page has it", (bench) =>
    withDocumentedModules(async ({ "access.mjs": { SyncServer }, "use-access.mjs": { connect } }) => {
      const { server, network, owner } = bench;
      const app = await NodeApp.signedIn(network, owner);
      const pds = (path) => app.session.fetchHandler(path);
      const keys = await SyncServer.newKeys();
      assert.equal((await connect(pds, server.url, app.clientId, keys)).status, "pending");
      await server.approveOne();
      const { status, sync, url } = await connect(pds, server.url, app.clientId, keys);
      assert.equal(status, "granted");
      server.secrets.add("access token", sync.session.accessToken);
      await inSync(bench, url, await sync.socket(GROUP));
      const before = sync.session.accessToken;
      assert.equal((await sync.refresh()).id, sync.session.id);
      server.secrets.add("refresh token", sync.session.refreshToken);
      assert.ok(before && (await sync.socket(GROUP)).includes("ticket="));
    }));
});
