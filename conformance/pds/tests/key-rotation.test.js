// The owner's account gets a new signing key, as by a move to another PDS, while the server runs.

import assert from "node:assert/strict";

import { cases } from "../lib/cases.js";
import { Device, NSID } from "../lib/device.js";
import { allowed, approved, GROUP } from "../lib/lives.js";
import { webMetadata } from "../lib/metadata.js";
import { NodeApp } from "../lib/node-app.js";

const REQUEST_ACCESS = `${NSID}.requestAccess`;

cases("a new signing key", "carol", (declare) => {
  declare("service auth with the new key is good without a restart, and with the old one no more", async (bench) => {
    const { network, server, owner } = bench;
    const { client_id: clientId } = await webMetadata(network, "rotating");
    const access = { clientId, groups: [GROUP] };
    const device = await Device.with(server);
    const ask = async (token) => device.requestAccess(await token, access);
    assert.equal((await ask(owner.serviceAuth(server.service, REQUEST_ACCESS))).body.status, "pending");

    const old = await owner.serviceAuth(server.service, REQUEST_ACCESS);
    await owner.rotateKey();
    // a signature that does not fit has the server look the DID up again, though it did so a moment ago
    assert.equal((await ask(owner.serviceAuth(server.service, REQUEST_ACCESS))).body.status, "pending");
    const { status, body } = await ask(old);
    assert.deepEqual([status, body.error], [401, "InvalidServiceAuth"]);
  });

  declare("devices that were approved before stay approved", async ({ network, server, owner }) => {
    const app = await NodeApp.signedIn(network, owner);
    await approved(server, app);
    await owner.rotateKey();
    allowed(await app.authenticate(server, { lexiconAuthorityDomain: GROUP }));
  });
});
