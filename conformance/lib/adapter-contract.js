// automerge-repo's own acceptance tests for network adapters, with the server in the middle of three clients.

import { register } from "node:module";
import { after } from "node:test";

import { calm, packagesOf } from "./client.js";
import { Server } from "./server.js";
import { declareFor } from "./vitest.js";

register("./vitest-hook.js", import.meta.url);

const RETRY_MS = 250;

/** Declares the acceptance tests that this generation of automerge-repo ships. */
export async function runAdapterContract(generation) {
  const { BrowserWebSocketClientAdapter } = await packagesOf(generation);
  const { runNetworkAdapterTests } = await import(`../clients/v${generation}/adapter-tests.js`);
  const servers = [];
  const opened = [];
  after(async () => {
    opened.forEach(silence);
    await Promise.all(servers.map((server) => server.dispose()));
  });

  declareFor(generation);
  runNetworkAdapterTests(async () => {
    // Every case calls its peers alice, bob and charlie: a server each keeps them apart.
    const server = await Server.start();
    servers.push(server);
    const adapters = [1, 2, 3].map(() => {
      const adapter = new BrowserWebSocketClientAdapter(server.url, RETRY_MS);
      calm(adapter);
      return adapter;
    });
    opened.push(...adapters);
    return { adapters, teardown: () => adapters.forEach(silence) };
  }, "through groundmist-sync");
}

/** Ends an adapter for good, whatever state its test left it in. */
function silence(adapter) {
  adapter.connect = () => {};
  adapter.socket?.close();
}
