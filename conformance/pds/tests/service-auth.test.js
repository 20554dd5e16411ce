// Door B: XRPC with service auth that the owner's PDS signs, straight or by way of the PDS.

import assert from "node:assert/strict";
import { before } from "node:test";

import { decodeJwt } from "jose";

import { automergeRepo } from "../../clients/v2.5.6/index.js";
import { cases } from "../lib/cases.js";
import { checked, Device, NSID, throughPds } from "../lib/device.js";
import { GROUP } from "../lib/lives.js";
import { webMetadata } from "../lib/metadata.js";
import { Network } from "../lib/network.js";
import { NodeApp } from "../lib/node-app.js";
import { closed, opened, statusOf } from "../lib/socket.js";

const REQUEST_ACCESS = `${NSID}.requestAccess`;
const OTHER_GROUP = "xyz.groundmist.notebook";

cases("service auth", "alice", (declare) => {
  const clientId = "https://app.groundmist.dev/reader.json";
  const access = { clientId, deviceName: "Alice's laptop", groups: [GROUP] };
  before(() => webMetadata(Network.ofRun(), "reader"));

  /** A device of the app with a session that the owner has approved. */
  async function approvedDevice({ server, owner }, wanted = access) {
    const device = await Device.with(server);
    const { body } = await device.requestAccess(await owner.serviceAuth(server.service, REQUEST_ACCESS), wanted);
    assert.equal(body.status, "pending");
    await server.approveOne();
    const { body: granted } = await device.requestAccess(await owner.serviceAuth(server.service, REQUEST_ACCESS), wanted);
    assert.equal(granted.status, "granted", JSON.stringify(granted));
    return device;
  }

  declare("anybody may ask what the server is", async ({ server, owner }) => {
    const { body } = await checked(server, `${NSID}.getServer`, await fetch(`${server.url}/xrpc/${NSID}.getServer`));
    assert.deepEqual([body.did, body.legacyAuthenticate], [server.did, true]);
    assert.ok(!JSON.stringify(body).includes(owner.did), "whose it is, it does not say");
    const document = await (await fetch(`${server.url}/.well-known/did.json`)).json();
    assert.equal(document.id, server.did);
    const [service] = document.service;
    assert.deepEqual(
      [service.id.replace(server.did, ""), service.type, service.serviceEndpoint],
      ["#groundmist_sync", "GroundmistSync", server.url],
    );
  });

  declare("a device waits for the owner, and then has a session for the groups that it asked for", async (bench) => {
    const { network, server, owner } = bench;
    // as an app gets it: with its OAuth session at the PDS
    const app = await NodeApp.signedIn(network, owner);
    const device = await Device.with(server);
    const token = () => app.serviceAuth(server.service, REQUEST_ACCESS);
    assert.equal(decodeJwt(await token()).aud, server.service);

    const { body: asked } = await device.requestAccess(await token(), access);
    assert.equal(asked.status, "pending");
    assert.equal((await device.requestAccess(await token(), access)).body.pendingId, asked.pendingId, "asked again, it is the same request");
    const request = await server.onePending();
    assert.deepEqual(
      [request.id, request.app, request.appName, request.fingerprint, request.deviceName],
      [asked.pendingId, clientId, "Reader", device.thumbprint, access.deviceName],
    );

    await server.cli("devices", "approve", request.id);
    const { body } = await device.requestAccess(await token(), access);
    assert.deepEqual([body.status, body.did], ["granted", owner.did]);
    assert.deepEqual(body.session.groups, [{ group: GROUP, access: "write" }]);
    const { body: session } = await device.call("getSession");
    assert.deepEqual(
      [session.id, session.did, session.clientId, session.deviceName, session.groups],
      [body.session.id, owner.did, clientId, access.deviceName, body.session.groups],
    );
  });

  declare("a device that the owner has denied learns so", async ({ server, owner }) => {
    const device = await Device.with(server);
    const ask = async () => device.requestAccess(await owner.serviceAuth(server.service, REQUEST_ACCESS), access);
    await server.cli("devices", "deny", (await ask()).body.pendingId);
    assert.deepEqual(await errorOf(ask()), [403, "AccessDenied"]);
  });

  declare("a ticket opens one WebSocket, once; the session's end closes it", async (bench) => {
    const device = await approvedDevice(bench);
    const { ticket, url } = await device.ticket(GROUP);
    assert.equal(url, `ws://${bench.server.host}/sync?ticket=${ticket}`);
    const socket = await opened(url);
    assert.equal(await statusOf(url), 401, "the second use");
    assert.equal((await device.call("createTicket", { input: { group: OTHER_GROUP } })).body.error, "AccessDenied");

    const { status, body } = await device.call("revokeSession", { input: {} });
    assert.deepEqual([status, body], [200, {}]);
    await closed(socket);
    assert.deepEqual(await errorOf(device.call("getSession")), [401, "InvalidSession"]);
  });

  declare("a document syncs over sockets that tickets have opened", async (bench) => {
    const { url } = await (await approvedDevice(bench)).ticket(GROUP);
    const { url: other } = await (await approvedDevice(bench)).ticket(GROUP);
    const [alice, bob] = [await bench.repoAt(url), await bench.repoAt(other)];
    const written = alice.create({ n: 1 });
    await alice.saved(written);
    assert.deepEqual(bob.json(await bob.find(written.url)), { n: 1 });
  });

  declare("a session is refreshed, and a refresh whose answer was lost can be repeated at once", async (bench) => {
    const device = await approvedDevice(bench);
    const { refreshToken } = device.session;
    const { status, body } = await device.call("refreshSession", { token: refreshToken });
    assert.equal(status, 200);
    assert.notEqual(body.refreshToken, refreshToken);
    device.keep((await device.call("refreshSession", { token: refreshToken })).body);
    assert.equal((await device.call("getSession")).status, 200);
    assert.equal((await device.call("refreshSession", { token: device.session.refreshToken })).status, 200);
    assert.equal((await device.call("getSession", { token: refreshToken })).status, 401, "a refresh token is no access token");
  });

  declare("a session belongs to its key: with another one its tokens are worth nothing", async (bench) => {
    const [device, thief] = [await approvedDevice(bench), await Device.with(bench.server)];
    const { accessToken, refreshToken } = device.session;
    for (const [name, token] of [["getSession", accessToken], ["refreshSession", refreshToken]]) {
      assert.equal((await thief.call(name, { token })).status, 401, name);
    }
    assert.equal((await device.call("getSession")).status, 200, "and that has not hurt it");
  });

  declare("devices of one app share its root document, and see each other's sessions", async (bench) => {
    const [first, second] = [automergeRepo.generateAutomergeUrl(), automergeRepo.generateAutomergeUrl()];
    const group = OTHER_GROUP;
    const [laptop, phone] = [
      await approvedDevice(bench, { ...access, groups: [group] }),
      await approvedDevice(bench, { ...access, deviceName: "Alice's phone", groups: [group] }),
    ];
    const root = async (device) => (await device.call("getRootDocument", { params: { group } })).body.url;
    assert.equal(await root(phone), null);
    assert.equal((await laptop.call("putRootDocument", { input: { group, url: first } })).body.url, first);
    assert.equal((await phone.call("putRootDocument", { input: { group, url: second } })).body.url, first);
    assert.equal(await root(phone), first);

    const { body } = await laptop.call("listSessions");
    const current = body.sessions.filter((session) => session.current);
    assert.deepEqual(current.map(({ id }) => id), [laptop.session.id]);
    assert.ok(body.sessions.some(({ deviceName }) => deviceName === "Alice's phone"));
    assert.ok(body.sessions.every((session) => session.clientId === clientId));

    // it sees the other device's session, and cannot end it: that is the owner's to do
    assert.deepEqual(await errorOf(laptop.call("revokeSession", { input: { id: phone.session.id } })), [403, "AccessDenied"]);
    assert.equal((await phone.call("getSession")).status, 200);
  });

  declare("through the PDS, an app lists groups, and asks for access with its proof in the body", async ({ server, owner }) => {
    const listed = await throughPds(server, owner, "listGroups");
    assert.equal(listed.status, 200, JSON.stringify(listed.body));
    assert.ok(listed.body.groups.some(({ group }) => group === GROUP));

    const device = await Device.with(server);
    // there is no header for a nonce on this way
    device.nonce = (await (await fetch(`${server.url}/xrpc/${NSID}.getServer`)).json()).nonce;
    const ask = async () => {
      const proof = await device.proof("POST", REQUEST_ACCESS);
      const groups = [{ group: GROUP, access: "write" }];
      const answer = await throughPds(server, owner, "requestAccess", { input: { clientId, groups, proof } });
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      return answer.body;
    };
    assert.equal((await ask()).status, "pending");
    await server.approveOne();
    const granted = await ask();
    assert.equal(granted.status, "granted");
    device.keep(granted.session);
    assert.equal((await device.call("getSession")).status, 200);
  });

  declare("service auth is good for this server, this method, its owner, and once, also after a restart", async (bench) => {
    const { network, server, owner } = bench;
    const device = await Device.with(server);
    const ask = async (token) => errorOf(device.requestAccess(await token, access));
    const bad = [401, "InvalidServiceAuth"];
    assert.deepEqual(await ask(network.bob.serviceAuth(server.service, REQUEST_ACCESS)), bad, "another account");
    assert.deepEqual(await ask(owner.serviceAuth(server.service, `${NSID}.listGroups`)), bad, "another method");
    assert.deepEqual(await ask(owner.serviceAuth(server.service)), bad, "no method");
    assert.deepEqual(await ask(owner.serviceAuth("did:web:localhost%3A1#groundmist_sync", REQUEST_ACCESS)), bad, "another server");
    assert.deepEqual(await ask(owner.serviceAuth(`${server.did}#other`, REQUEST_ACCESS)), bad, "another service");
    assert.deepEqual(await server.pending(), []);

    const token = await owner.serviceAuth(server.did, REQUEST_ACCESS);
    assert.deepEqual(await ask(token), [200, undefined], "the server's bare DID");
    assert.deepEqual(await ask(token), bad, "a second time");
    await server.restart();
    assert.deepEqual(await ask(token), bad, "after a restart");
  });

  declare("a proof is good once, and with the nonce of this server", async (bench) => {
    const { server } = bench;
    const device = await approvedDevice(bench);
    const token = device.session.accessToken;
    const proof = await device.proof("GET", `${NSID}.getSession`, { token });
    const call = (options) => device.callOnce("getSession", { token, scheme: "DPoP", ...options });
    assert.equal((await call({ proof })).status, 200);
    assert.deepEqual(await errorOf(call({ proof })), [401, "InvalidDpopProof"]);
    const foreign = await device.proof("GET", `${NSID}.getSession`, { token, nonce: "of-another-server" });
    const { status, body, headers } = await call({ proof: foreign });
    assert.deepEqual([status, body.error], [401, "UseDpopNonce"]);
    assert.match(headers.get("www-authenticate"), /^DPoP .*error="use_dpop_nonce"/);
    assert.match(headers.get("dpop-nonce"), /\S/);
    for (const [what, wrong] of [
      ["another method", { htm: "POST" }],
      ["another address", { htu: `${server.url}/xrpc/${NSID}.listSessions` }],
      ["another token", { ath: "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU" }],
      ["long ago", { iat: Math.floor(Date.now() / 1_000) - 600 }],
    ]) {
      const bad = await device.proof("GET", `${NSID}.getSession`, { token, ...wrong });
      assert.deepEqual(await errorOf(call({ proof: bad })), [401, "InvalidDpopProof"], what);
    }
  });

  declare("a method that does not exist is answered as XRPC wants it", async ({ server }) => {
    const response = await fetch(`${server.url}/xrpc/${NSID}.noSuchMethod`);
    assert.equal(response.status, 501);
    assert.equal((await response.json()).error, "MethodNotImplemented");
    const wrong = await fetch(`${server.url}/xrpc/${NSID}.getServer`, { method: "POST" });
    assert.equal(wrong.status, 405);
  });
});

async function errorOf(call) {
  const { status, body } = await call;
  return [status, body.error];
}
