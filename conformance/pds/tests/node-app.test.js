// POST /authenticate, called by the stock OAuth client of Node.

import assert from "node:assert/strict";

import { cases } from "../lib/cases.js";
import { allowed, approved, GROUP, refused, revoked, unapproved } from "../lib/lives.js";
import { NodeApp } from "../lib/node-app.js";
import { Server } from "../lib/server.js";
import { closed, opened, statusOf } from "../lib/socket.js";

const FIELDS = { lexiconAuthorityDomain: GROUP };

cases("a Node app", "alice", (declare) => {
  declare("while the pairing window is shut, a device is refused and leaves no request", async ({ network, server, owner }) => {
    const app = await NodeApp.signedIn(network, owner);
    await unapproved(app, await app.authenticate(server, FIELDS), "closed");
    assert.deepEqual(await server.pending(), []);
  });

  declare("while it is open, a device leaves one request, which names app and key, and that it is no browser", async (bench) => {
    const { network, server, owner } = bench;
    const app = await NodeApp.signedIn(network, owner);
    await server.openPairing();
    await unapproved(app, await app.authenticate(server, FIELDS), "waiting");
    await unapproved(app, await app.authenticate(server, FIELDS), "waiting");
    const request = await server.onePending();
    assert.equal(request.app, app.clientId);
    assert.equal(request.origin, null);
    assert.equal(request.kind, "native");
    assert.equal(request.fingerprint, app.thumbprint);
    assert.deepEqual(request.groups, [{ group: GROUP, access: "write" }]);

    // what the owner reads before they approve
    const text = await server.cli("devices", "pending");
    for (const sign of [request.id, GROUP, "not a browser"]) assert.ok(text.includes(sign), `${sign} in:\n${text}`);
    assert.ok(text.replaceAll(" ", "").includes(app.thumbprint), text);
  });

  declare("an approved device gets a token, and syncs with another one by stock automerge-repo", async (bench) => {
    const { network, server, owner } = bench;
    const [here, there] = [await NodeApp.signedIn(network, owner), await NodeApp.signedIn(network, owner)];
    const [mine, theirs] = [await approved(server, here), await approved(server, there)];
    const [alice, bob] = [await bench.repo(mine.token), await bench.repo(theirs.token)];
    const written = alice.create({ title: "Tide tables" });
    await alice.saved(written);
    const read = await bob.find(written.url);
    read.change((doc) => (doc.read = true));
    await alice.sees(written, "the other device's edit", (doc) => doc.read === true);
  });

  declare("an approval is for one device: the next one of the same app is refused", async ({ network, server, owner }) => {
    const [approvedOne, nextOne] = [await NodeApp.signedIn(network, owner), await NodeApp.signedIn(network, owner)];
    await approved(server, approvedOne);
    await server.closePairing();
    await unapproved(nextOne, await nextOne.authenticate(server, FIELDS), "closed");
  });

  declare("an approval is for one group: another one needs the owner again", async ({ network, server, owner }) => {
    const app = await NodeApp.signedIn(network, owner);
    await approved(server, app, { options: ["--group", GROUP] });
    await server.closePairing();
    await unapproved(app, await app.authenticate(server, { lexiconAuthorityDomain: "xyz.groundmist.notebook" }), "closed");
    allowed(await app.authenticate(server, FIELDS));
  });

  declare("a device that was approved to read reads, and its edits reach nobody", async (bench) => {
    const { network, server, owner } = bench;
    const [writing, reading] = [await NodeApp.signedIn(network, owner), await NodeApp.signedIn(network, owner)];
    const [{ token: write }, { token: read }] = [await approved(server, writing), await approved(server, reading, { options: ["--read-only"] })];
    const [writer, reader] = [await bench.repo(write), await bench.repo(read)];
    const hers = writer.create({ n: 0 });
    await writer.saved(hers);
    const copy = await reader.find(hers.url);
    copy.change((doc) => (doc.forbidden = true));
    hers.change((doc) => (doc.n = 1));
    await reader.sees(copy, "the writer's edit", (doc) => doc.n === 1);
    const late = await bench.repo(write);
    assert.deepEqual(late.json(await late.find(hers.url)), { n: 1 });
  });

  declare("a revoked device loses its socket within a second, and neither its token nor its key opens another", async (bench) => {
    const { network, server, owner } = bench;
    const app = await NodeApp.signedIn(network, owner);
    const { device, token } = await approved(server, app);
    const socket = await opened(server.urlFor(token));
    await server.cli("devices", "revoke", device);
    await closed(socket);
    assert.equal(await statusOf(server.urlFor(token)), 401);
    await revoked(app, await app.authenticate(server, FIELDS));
    assert.deepEqual((await server.cliJson("devices", "ls")).filter(({ id }) => id === device), []);
  });

  declare("a device that was denied is refused, and its request is gone", async ({ network, server, owner }) => {
    const app = await NodeApp.signedIn(network, owner);
    await server.openPairing();
    await unapproved(app, await app.authenticate(server, FIELDS), "waiting");
    const { id } = await server.onePending();
    await server.cli("devices", "deny", id);
    assert.deepEqual(await server.pending(), []);
    await unapproved(app, await app.authenticate(server, FIELDS), "denied");
  });

  declare("another account's session is refused by name, and leaves no request", async ({ network, server }) => {
    const app = await NodeApp.signedIn(network, network.bob);
    await server.openPairing();
    await refused(app, await app.authenticate(server, FIELDS), "token_mismatch");
    assert.deepEqual(await server.pending(), []);
  });

  for (const [what, settings, status, error] of [
    ["the door closed", { GROUNDMIST_SYNC_LEGACY_AUTHENTICATE: "off" }, 404, "not_found"],
    ["no owner", { ATPROTO_DID: undefined }, 503, "not_configured"],
    ["no public URL", { GROUNDMIST_SYNC_PUBLIC_URL: undefined, GROUNDMIST_SYNC_TEST_HOST_MAP: undefined }, 503, "not_configured"],
  ]) {
    declare(`a server with ${what} says so, and the app keeps its session`, async ({ network, owner }) => {
      const app = await NodeApp.signedIn(network, owner);
      const server = await Server.start(network, owner, settings);
      try {
        const answer = await app.authenticate(server, FIELDS);
        assert.deepEqual([answer.status, answer.body.error, answer.body.token], [status, error, undefined]);
        assert.ok(await app.isSignedIn());
      } finally {
        await server.dispose();
      }
    });
  }

  declare("every answer has a nonce, also a refusal", async ({ network, server, owner }) => {
    const app = await NodeApp.signedIn(network, owner);
    const { headers } = await app.authenticate(server, FIELDS);
    assert.match(headers.get("dpop-nonce"), /\S/);
    const bare = await fetch(`${server.url}/authenticate`, { method: "POST", body: JSON.stringify(FIELDS) });
    assert.equal(bare.status, 401);
    assert.match(bare.headers.get("dpop-nonce"), /\S/);
    assert.doesNotMatch(bare.headers.get("www-authenticate"), /invalid_token/);
  });
});
