// The owner's account gets a new signing key, as by a move to another PDS, while the server runs.

import assert from "node:assert/strict";

import { until } from "../../lib/wait.js";
import { cases } from "../lib/cases.js";
import { Device, NSID } from "../lib/device.js";
import { allowed, approved, GROUP } from "../lib/lives.js";
import { NodeApp } from "../lib/node-app.js";

const REQUEST_ACCESS = `${NSID}.requestAccess`;
const access = { clientId: "https://app.groundmist.dev/reader.json", groups: [GROUP] };

/** The server looks a DID up again for a bad signature, but not at once after the last time. */
const REFRESH_MS_MAX = 35_000;

cases("a new signing key", "carol", (declare) => {
  declare("service auth with the new key is good without a restart, and with the old one no more", async ({ server, owner }) => {
    const device = await Device.with(server);
    await server.openPairing();
    const ask = async (token) => device.requestAccess(await token, access);
    assert.equal((await ask(owner.serviceAuth(server.service, REQUEST_ACCESS))).body.status, "pending");

    const old = await owner.serviceAuth(server.service, REQUEST_ACCESS);
    await owner.rotateKey();
    await until(
      "service auth with the new key being good",
      async () => {
        const { status, body } = await ask(owner.serviceAuth(server.service, REQUEST_ACCESS));
        if (status !== 200) assert.equal(body.error, "InvalidServiceAuth");
        return status === 200;
      },
      REFRESH_MS_MAX,
    );
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
