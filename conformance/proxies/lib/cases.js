// What must hold behind every proxy; each is run through each of them.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { Client, converged, GENERATIONS } from "../../lib/client.js";
import { until } from "../../lib/wait.js";
import { Server } from "../../pds/lib/server.js";
import { Device } from "./device.js";
import { plainRequest, request, webSocket } from "./request.js";

const CASE_MS_MAX = 30_000;
const OWNER = "did:plc:7iza6de2dwap2sbkpav7c6c6";
const GROUP = "test.example.notes";
const ORIGIN = "https://app.example.dev";
/** More than the body of a request may have. */
const LARGE_BYTES = 1 << 20;

/** Declares the cases for the proxy `name`, on one server; `declareMore` has those that it alone has. */
export function proxyCases(name, Proxy, declareMore = () => {}) {
  describe(name, () => {
    const here = {};
    before(async () => {
      here.proxy = await Proxy.prepare();
      const nobody = { plcUrl: "http://localhost:1" };
      here.server = await Server.start(nobody, { did: OWNER }, {
        GROUNDMIST_SYNC_PUBLIC_URL: here.proxy.url,
        GROUNDMIST_SYNC_TRUSTED_PROXIES: "127.0.0.1",
      });
      here.token = here.server.secrets.add("sync token", (await here.server.cli("token", "add", "--group", GROUP)).trim());
      await here.proxy.start(here.server.port);
    });
    after(async () => {
      await here.proxy?.dispose();
      await here.server?.dispose();
    });
    const declare = (about, body) => test(`[${name}] ${about}`, { timeout: CASE_MS_MAX }, () => body(here));
    declareMore(declare);
    reaching(declare);
    knowing(declare);
    keepingSecrets(declare);
  });
}

function reaching(declare) {
  declare("the server answers over TLS, and browsers are told to stay with that", async ({ proxy }) => {
    const { status, headers, body } = await request(proxy, "/");
    assert.deepEqual([status, body], [200, "👍 Groundmist personal sync server is running"]);
    assert.equal(headers["strict-transport-security"], "max-age=31536000");
  });

  declare("who comes without TLS is sent to it", async ({ proxy }) => {
    const { status, headers } = await plainRequest(proxy, "/xrpc/_health?a=b");
    assert.deepEqual([status, headers.location], [308, "https://localhost/xrpc/_health?a=b"]);
  });

  declare("stock apps sync through it, also what is longer than a body may be", async ({ proxy, token }) => {
    const clients = [];
    try {
      for (const generation of GENERATIONS) clients.push(await Client.connect(generation, proxy, { token, direct: true }));
      const [writer] = clients;
      const written = writer.create({ content: new Uint8Array(randomBytes(LARGE_BYTES)), n: 0 });
      await writer.saved(written);
      const copies = await Promise.all(clients.map(async (client) => [client, await client.find(written.url)]));
      await converged(copies);
      written.change((doc) => doc.n++);
      await writer.saved(written);
      await converged(copies);
    } finally {
      await Promise.all(clients.map((client) => client.close()));
    }
  });

  declare("a token as a header or a subprotocol arrives, and the subprotocol comes back", async ({ proxy, token }) => {
    const ways = [
      { headers: { Authorization: `Bearer ${token}` } },
      { protocols: [`groundmist.token.${token}`] },
    ];
    for (const way of ways) {
      const { status, socket } = await webSocket(proxy, "/sync", way);
      assert.equal(status, 101);
      assert.equal(socket.protocol, way.protocols?.[0] ?? "");
      socket.terminate();
    }
  });
}

function knowing(declare) {
  declare("the headers of POST /authenticate arrive, and those of its answer come back", async ({ proxy, server }) => {
    const device = new Device(OWNER);
    server.secrets.add("access token", device.accessToken);
    const proof = server.secrets.add("garbage", `a.${randomBytes(32).toString("base64url")}`);
    const garbage = await device.authenticate(proxy, { origin: ORIGIN, proof });
    assert.deepEqual([garbage.status, JSON.parse(garbage.body).error], [401, "invalid_dpop_proof"]);
    assert.match(garbage.headers["www-authenticate"], /^DPoP error="invalid_dpop_proof"/);
    assert.match(garbage.headers["dpop-nonce"], /./);
    assert.match(garbage.headers["access-control-expose-headers"], /dpop-nonce/i);
    assert.equal(garbage.headers["access-control-allow-origin"], ORIGIN);

    // signed for the address of the proxy, with that nonce: all that is missing is the owner's approval
    const good = await device.authenticate(proxy, { origin: ORIGIN });
    server.secrets.add("proof", good.proof);
    const { error, pairing } = JSON.parse(good.body);
    assert.deepEqual([good.status, error, pairing], [403, "approval_required", "closed"]);
  });

  declare("the server sees who has connected, and not whom a client names", async ({ proxy, server }) => {
    const forged = { "X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", Forwarded: "for=6.6.6.6" };
    const refused = [
      await request(proxy, "/sync?token=not-a-token", { from: "127.0.0.9", headers: forged }),
      await webSocket(proxy, "/?token=not-a-token", { from: "127.0.0.10", headers: forged }),
      await new Device(OWNER).authenticate(proxy, { proof: "none" }),
    ];
    assert.deepEqual(refused.map(({ status }) => status), [401, 401, 401]);
    const seen = await until("the refusals in the audit", async () => {
      const addresses = (await server.cliJson("audit")).map(({ address }) => address);
      return addresses.includes("127.0.0.9") && addresses.includes("127.0.0.10") && addresses;
    });
    assert.ok(!seen.includes("6.6.6.6"), String(seen));
  });
}

function keepingSecrets(declare) {
  declare("its logs have every request with its outcome, and no secret", async ({ proxy, server, token }) => {
    const ticket = server.secrets.add("ticket", randomBytes(32).toString("base64url"));
    const headers = { Authorization: `Bearer ${token}`, Referer: `${proxy.url}/?token=${token}`, Cookie: `token=${token}` };
    assert.equal((await request(proxy, `/sync?ticket=${ticket}`)).status, 401);
    assert.equal((await request(proxy, `/sync?token=${token}`, { headers })).status, 426);
    await plainRequest(proxy, `/plain?token=${token}`);
    await request(proxy, `/large?token=${token}`, { method: "POST", body: "a".repeat(65 << 10) });

    // what goes wrong is logged in other words, at other places
    const { socket } = await webSocket(proxy, `/?token=${token}`);
    socket.on("error", () => {});
    await server.stop();
    try {
      assert.equal((await request(proxy, `/gone?token=${token}`, { headers })).status, 502);
      const failed = await webSocket(proxy, `/gone-socket?ticket=${ticket}`, { protocols: [`groundmist.token.${token}`] });
      assert.equal(failed.status, 502);
      await request(proxy, `/heads?token=${token}`, { headers: { Cookie: `token=${token}`.repeat(2_000) } }).catch(() => {});
    } finally {
      await server.restart();
    }

    const logs = await until("the last request in the logs", async () => {
      const text = await proxy.logs();
      return /\/gone-socket\b/.test(text) && text;
    });
    const lines = [/\/sync\b.*426/, /\/sync\b.*401/, /\/authenticate\b.*403/, /\/large\b/, /\/gone\b.*502/];
    for (const line of lines) assert.match(logs, line);
    assert.deepEqual(server.secrets.foundIn(logs), []);
    assert.doesNotMatch(logs, /token=|ticket=|groundmist\.token|authorization|dpop|referer/i);
  });
}
