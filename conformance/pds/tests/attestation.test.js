// Door B for apps that prove who they are: confidential clients with a client attestation (atproto proposal 0016).

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { exportJWK, generateKeyPair, SignJWT } from "jose";

import { cases } from "../lib/cases.js";
import { Device, NSID } from "../lib/device.js";
import { GROUP } from "../lib/lives.js";
import { webMetadata } from "../lib/metadata.js";

const REQUEST_ACCESS = `${NSID}.requestAccess`;

/** An app with a key of its own, and a metadata document that says so. */
class ConfidentialApp {
  #key;

  static async on(network, name) {
    const app = new ConfidentialApp();
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    app.#key = privateKey;
    const jwk = { ...(await exportJWK(publicKey)), kid: name, alg: "ES256", use: "sig" };
    app.keyId = name;
    const jwksUri = await network.host(`${name}-keys.json`, { keys: [jwk] });
    const metadata = await webMetadata(network, name, {
      token_endpoint_auth_method: "private_key_jwt",
      token_endpoint_auth_signing_alg: "ES256",
      jwks_uri: jwksUri,
    });
    app.clientId = metadata.client_id;
    return app;
  }

  async attestation(server, device, { typ = "atproto-client-attestation+jwt", ...claims } = {}) {
    const now = Math.floor(Date.now() / 1_000);
    const payload = { iss: this.clientId, sub: this.clientId, aud: server.did, jti: randomUUID(), iat: now, exp: now + 60, cnf: { jkt: device.thumbprint }, ...claims };
    const token = await new SignJWT(payload).setProtectedHeader({ typ, alg: "ES256", kid: this.keyId }).sign(this.#key);
    return server.secrets.add("attestation", token);
  }
}

cases("a confidential app", "alice", (declare) => {
  async function ask({ server, owner }, device, app, attestation) {
    const token = await owner.serviceAuth(server.service, REQUEST_ACCESS);
    return device.requestAccess(token, { clientId: app.clientId, groups: [GROUP], attestation });
  }

  declare("without a grant it waits for the owner like any other", async (bench) => {
    const { network, server } = bench;
    const [app, device] = [await ConfidentialApp.on(network, "hopeful"), await Device.with(server)];
    const { body } = await ask(bench, device, app, await app.attestation(server, device));
    assert.equal(body.status, "pending");
    assert.equal((await server.onePending()).app, app.clientId);
  });

  declare("with a grant it has a session at once", async (bench) => {
    const { network, server } = bench;
    const [app, device] = [await ConfidentialApp.on(network, "granted"), await Device.with(server)];
    await server.cli("grants", "add", app.clientId, "--group", GROUP);
    const { body } = await ask(bench, device, app, await app.attestation(server, device));
    assert.equal(body.status, "granted", JSON.stringify(body));
    assert.deepEqual(body.session.groups, [{ group: GROUP, access: "write" }]);
    assert.equal((await device.call("getSession")).body.clientId, app.clientId);
  });

  declare("the grant is for the app that proves itself: no other's attestation, none too old, none of another kind", async (bench) => {
    const { network, server } = bench;
    const [app, other] = [await ConfidentialApp.on(network, "proven"), await ConfidentialApp.on(network, "impostor")];
    await server.cli("grants", "add", app.clientId, "--group", GROUP);
    const anHourAgo = Math.floor(Date.now() / 1_000) - 3_600;
    const claimed = { iss: app.clientId, sub: app.clientId };
    const device = await Device.with(server);
    for (const [what, attestation] of [
      ["another app's", await other.attestation(server, device)],
      ["in its name, with another app's key", await other.attestation(server, device, claimed)],
      ["for another server", await app.attestation(server, device, { aud: "did:web:localhost%3A1" })],
      ["for another device", await app.attestation(server, await Device.with(server))],
      ["for any device", await app.attestation(server, device, { cnf: undefined })],
      ["too old", await app.attestation(server, device, { iat: anHourAgo, exp: anHourAgo + 60 })],
      ["of another type", await app.attestation(server, device, { typ: "JWT" })],
    ]) {
      const { status, body } = await ask(bench, device, app, attestation);
      assert.deepEqual([status, body.error], [403, "UnverifiedApp"], what);
    }
    assert.deepEqual(await server.pending(), []);
    const none = await ask(bench, await Device.with(server), app, undefined);
    assert.equal(none.body.status, "pending", "none at all");
  });

  declare("an attestation is good once", async (bench) => {
    const { network, server } = bench;
    const app = await ConfidentialApp.on(network, "once");
    const device = await Device.with(server);
    const attestation = await app.attestation(server, device);
    assert.equal((await ask(bench, device, app, attestation)).body.status, "pending");
    await server.cli("grants", "add", app.clientId, "--group", GROUP);
    const { status, body } = await ask(bench, device, app, attestation);
    assert.deepEqual([status, body.error], [403, "UnverifiedApp"]);
  });
});
