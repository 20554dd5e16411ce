// Where an app's data begin: the first device's document, for all devices of the app.

import assert from "node:assert/strict";

import { automergeRepo } from "../../clients/v2.5.6/index.js";
import { cases } from "../lib/cases.js";
import { allowed, approved, GROUP } from "../lib/lives.js";
import { NodeApp } from "../lib/node-app.js";

const asking = (rootDocUrl) => ({ lexiconAuthorityDomain: GROUP, ...(rootDocUrl !== undefined && { rootDocUrl }) });

cases("root documents", "alice", (declare) => {
  const [first, second] = [automergeRepo.generateAutomergeUrl(), automergeRepo.generateAutomergeUrl()];
  let laptop, phone;

  declare("there is none at first, and the answer says so", async ({ network, server, owner }) => {
    [laptop, phone] = [await NodeApp.signedIn(network, owner), await NodeApp.signedIn(network, owner)];
    for (const app of [laptop, phone]) await approved(server, app);
    allowed(await laptop.authenticate(server, asking(null)), null);
  });

  declare("what is no automerge URL is refused, and not kept", async ({ server }) => {
    for (const url of ["undefined", "", "automerge:", "automerge:not-base58check", `${first}x`, "https://example.com/", 7]) {
      const { status, body } = await laptop.authenticate(server, asking(url));
      assert.deepEqual([status, body.error, body.rootDocUrl], [400, "invalid_request", null], String(url));
      assert.ok(await laptop.isSignedIn());
    }
    allowed(await laptop.authenticate(server, asking()), null);
  });

  declare("the first one stays, and every later device gets it, with or without one of its own", async ({ server }) => {
    allowed(await laptop.authenticate(server, asking(first)), first);
    allowed(await phone.authenticate(server, asking(second)), first);
    allowed(await phone.authenticate(server, asking()), first);
    allowed(await laptop.authenticate(server, asking(null)), first);
  });

  declare("it is kept over a restart, and so are the approvals", async ({ server }) => {
    await server.restart();
    allowed(await phone.authenticate(server, asking(second)), first);
  });

  declare("a refused device is told its own again, and never the owner's", async ({ network, server, owner }) => {
    const stranger = await NodeApp.signedIn(network, owner);
    const { status, body } = await stranger.authenticate(server, asking(second));
    assert.deepEqual([status, body.error, body.rootDocUrl], [403, "approval_required", second]);
  });

  declare("the owner sees it, and can change it", async ({ server }) => {
    const list = await server.cli("roots", "ls");
    assert.ok(list.includes(first) && list.includes(GROUP), list);
    await server.cli("roots", "set", laptop.clientId, GROUP, second);
    allowed(await laptop.authenticate(server, asking(first)), second);
    await server.cli("roots", "rm", laptop.clientId, GROUP);
    allowed(await laptop.authenticate(server, asking()), null);
  });
});
