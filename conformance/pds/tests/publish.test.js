// Where apps learn of the server: a record on the owner's own PDS, put there from the command line.

import assert from "node:assert/strict";

import { cases } from "../lib/cases.js";
import { lexicons } from "../lib/lexicons.js";

const COLLECTION = "xyz.groundmist.sync";

cases("publishing", "dave", (declare) => {
  const published = (owner) => owner.record(COLLECTION, owner.did);

  declare("init finds the account by its DID, and writes the settings", async ({ server, owner }) => {
    await server.cliWith({ variables: { ATPROTO_DID: undefined, GROUNDMIST_SYNC_PUBLIC_URL: undefined } }, "init", "--did", owner.did, "--public-url", server.url);
    const shown = JSON.parse(await server.cliWith({ variables: { ATPROTO_DID: undefined } }, "config", "show", "--json"));
    assert.equal(shown.find(({ key }) => key === "owner").value, owner.did);
  });

  declare("nothing is published at first, and that is said", async ({ server, owner }) => {
    assert.equal(await published(owner), undefined);
    await assert.rejects(server.cli("publish", "--verify"), /exit 1/);
    assert.match(await server.cli("publish", "--print"), new RegExp(server.host));
  });

  declare("the password of another account publishes nothing", async ({ network, server, owner }) => {
    const password = await network.bob.appPassword("publish");
    server.secrets.add("app password", password);
    await assert.rejects(server.cliWith({ input: `${password}\n` }, "publish", "--host", server.host, "--app-password-stdin"), /exit 1/);
    assert.equal(await published(owner), undefined);
    assert.equal(await network.bob.record(COLLECTION, network.bob.did), undefined);
  });

  declare("an app password of the owner publishes the record where apps look for it, as its lexicon has it", async ({ server, owner }) => {
    const password = await owner.appPassword("publish");
    server.secrets.add("app password", password);
    const said = await server.cliWith({ input: `${password}\n` }, "publish", "--host", server.host, "--app-password-stdin");
    assert.ok(!said.includes(password));
    const record = await published(owner);
    assert.deepEqual(record, { $type: COLLECTION, host: server.host });
    lexicons.assertValidRecord(COLLECTION, record);
    await server.cli("publish", "--verify");
    assert.ok((await server.cli("publish", "--show")).includes(server.host));
  });

  declare("the prototype's variables publish too, and a second time changes the first", async ({ network, server, owner }) => {
    const password = await owner.appPassword("publish again");
    server.secrets.add("app password", password);
    const variables = { PDS_URL: network.pdsUrl, HANDLE: owner.handle, PASSWORD: password };
    await server.cliWith({ variables }, "publish", "--host", "sync.example.com");
    assert.equal((await published(owner)).host, "sync.example.com");
    await assert.rejects(server.cli("publish", "--verify"), /exit 1/, "it names another server now");
  });

  declare("the record is removed again", async ({ server, owner }) => {
    const password = await owner.appPassword("remove");
    server.secrets.add("app password", password);
    await server.cliWith({ input: `${password}\n` }, "publish", "--remove", "--app-password-stdin");
    assert.equal(await published(owner), undefined);
  });
});
