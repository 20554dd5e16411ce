// POST /authenticate, called by stock OAuth clients in Chromium, which judges the server's CORS.

import assert from "node:assert/strict";
import { after, afterEach } from "node:test";

import { Browser, GENERATIONS } from "../lib/browser.js";
import { cases } from "../lib/cases.js";
import { approved, GROUP, refused, revoked, unapproved } from "../lib/lives.js";
import { APP_ORIGIN } from "../lib/network.js";

const FIELDS = { lexiconAuthorityDomain: GROUP };
const REVOKED_MS_MAX = 1_000;

const browser = await Browser.launch();
after(() => browser.close());

/** Where the app is: a developer's machine, or the web. */
const PLACES = {
  "on loopback": { open: (generation) => browser.loopbackPage(generation), kind: "unverified" },
  "on the web": { open: (generation) => browser.httpsPage(generation), name: "library", kind: "web" },
};

cases("a browser app", "alice", (declare) => {
  afterEach(() => browser.closePages());

  for (const generation of Object.keys(GENERATIONS)) {
    for (const [place, { open, name, kind }] of Object.entries(PLACES)) {
      declare(`oauth-client-browser ${generation} ${place}: refused, approved, in sync, revoked`, async (bench) => {
        const { network, server, owner } = bench;
        const page = await open(generation);
        await page.signIn(network, owner, { name });
        await unapproved(page, await page.authenticate(server, FIELDS), "closed");
        assert.deepEqual(await server.pending(), []);

        const { request, device, token } = await approved(server, page);
        assert.deepEqual([request.app, request.origin, request.kind], [page.clientId, page.origin, kind]);

        await page.connect(`ws://${server.host}/?token=${token}`);
        const url = await page.run("create", { title: "Tide tables" });
        const elsewhere = await bench.repo(token);
        const copy = await elsewhere.find(url);
        await elsewhere.sees(copy, "the page's document", (doc) => doc.title === "Tide tables");
        copy.change((doc) => (doc.read = true));
        await page.sees(url, "the other device's edit", (doc) => doc.read === true);

        await server.cli("devices", "revoke", device);
        await page.isConnected(false, REVOKED_MS_MAX);
        await revoked(page, await page.authenticate(server, FIELDS));
      });
    }
  }

  declare("a page whose origin is none of its app's redirect origins is refused by name", async ({ network, server, owner }) => {
    for (const [page, options] of [
      [await browser.httpsPage("0.5.3"), { redirectOrigin: "http://127.0.0.1:8765" }],
      [await browser.loopbackPage("0.5.3"), { redirectOrigin: APP_ORIGIN, name: "elsewhere" }],
    ]) {
      await page.signIn(network, owner, options);
      await server.openPairing();
      await refused(page, await page.authenticate(server, FIELDS), "origin_mismatch");
      assert.deepEqual(await server.pending(), []);
    }
  });

  declare("a hostile page gets nothing: not without a proof, not with cookies, not with a proof that it has seen", async (bench) => {
    const { network, server, owner } = bench;
    const [app, hostile] = [await browser.loopbackPage("0.5.3"), await browser.loopbackPage("0.5.3")];
    await app.signIn(network, owner);
    await approved(server, app);
    const url = `${server.url}/authenticate`;
    const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(FIELDS) };
    const call = (init) => hostile.run("bareFetch", url, { ...post, ...init });

    const { status, text } = await call({});
    assert.equal(status, 401);
    assert.equal(JSON.parse(text).token, undefined);
    // what the answer to credentials would be stays hidden: there is no Allow-Credentials
    assert.ok("blocked" in (await call({ credentials: "include" })));
    assert.ok("blocked" in (await call({ method: "DELETE" })), "a method that the preflight does not allow");
    assert.ok("blocked" in (await call({ headers: { ...post.headers, "x-other": "1" } })), "a header that it does not allow");

    const replayed = await call(await app.overheard(server, FIELDS));
    assert.equal(replayed.status, 401);
    assert.equal(JSON.parse(replayed.text).token, undefined);
  });

  declare("an unmodified groundmist app keeps its own root document while it is refused, and finds the first one once approved", async (bench) => {
    const { network, server, owner } = bench;
    const group = "xyz.groundmist.notebook.essay";
    // On the web: a loopback client id has the page's port in it, and these are two devices of one app.
    const [laptop, phone] = [await browser.httpsPage("0.3.10"), await browser.httpsPage("0.3.10")];
    const roots = new Map();
    for (const page of [laptop, phone]) {
      await page.signIn(network, owner, { name: "notebook" });
      roots.set(page, await page.run("startNotebook", page === laptop ? "laptop" : "phone"));
    }

    await server.openPairing();
    for (const page of [laptop, phone]) {
      const account = await page.run("connectNotebook", server.url, group);
      assert.equal(account, roots.get(page), "refused, and still at its own account document");
    }
    for (const { id } of await server.pending()) await server.cli("devices", "approve", id);

    assert.equal(await laptop.run("connectNotebook", server.url, group), roots.get(laptop));
    await laptop.isConnected(true);
    assert.equal(await phone.run("connectNotebook", server.url, group), roots.get(laptop), "the second device has the first one's");
    await phone.isConnected(true);
    await phone.sees(roots.get(laptop), "the first device's account document", (doc) => doc.madeOn === "laptop");
    for (const page of [laptop, phone]) server.secrets.add("sync token", await page.run("notebookToken"));
  });
});
