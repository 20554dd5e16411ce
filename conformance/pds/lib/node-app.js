// A stock app in Node: @atproto/oauth-client-node with a loopback client id, signed in at the PDS.

import { NodeOAuthClient } from "@atproto/oauth-client-node";
import { decodeJwt } from "jose";

import { consent } from "./consent.js";
import { loopbackMetadata, SCOPE } from "./metadata.js";

export class NodeApp {
  /** Sessions of the PDS, by DID, as the library keeps them. */
  kept = new Map();

  /** An app that this account has signed in to. Each has a DPoP key of its own. */
  static async signedIn(network, account) {
    const app = new NodeApp();
    const clientMetadata = loopbackMetadata("http://127.0.0.1:8765/callback");
    app.clientId = clientMetadata.client_id;
    const client = new NodeOAuthClient({
      clientMetadata,
      allowHttp: true,
      plcDirectoryUrl: network.plcUrl,
      handleResolver: network.pdsUrl,
      stateStore: storeIn(new Map()),
      sessionStore: storeIn(app.kept),
      requestLock: async (name, critical) => critical(),
    });
    const back = await consent(await client.authorize(account.did, { scope: SCOPE }), account);
    app.session = (await client.callback(back.searchParams)).session;
    app.did = account.did;
    app.network = network;
    return app;
  }

  /** The access token that the PDS has given the app: as much of a secret as its session. */
  get accessToken() {
    return this.kept.get(this.did).tokenSet.access_token;
  }

  /** The thumbprint of its DPoP key, as the PDS has it in the token. */
  get thumbprint() {
    return decodeJwt(this.accessToken).cnf.jkt;
  }

  /** What an app sends to its owner's sync server: any further fields, none for none. */
  async authenticate(server, fields) {
    const response = await this.session.fetchHandler(`${server.url}/authenticate`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(fields),
    });
    const body = await response.json();
    server.secrets.add("access token of the PDS", this.accessToken);
    if (body.token) server.secrets.add("sync token", body.token);
    // to which the library answers by deleting its session
    if (/invalid_token/.test(response.headers.get("www-authenticate"))) throw new Error("the server said invalid_token");
    return { status: response.status, headers: response.headers, body };
  }

  async serviceAuth(aud, lxm) {
    const response = await this.session.fetchHandler(
      `/xrpc/com.atproto.server.getServiceAuth?${new URLSearchParams({ aud, lxm })}`,
    );
    return (await response.json()).token;
  }

  /** Whether the app still has its session with the PDS, and it works. */
  async isSignedIn() {
    if (!this.kept.has(this.did)) return false;
    const response = await this.session.fetchHandler("/xrpc/com.atproto.server.getSession");
    return response.ok && (await response.json()).did === this.did;
  }
}

const storeIn = (map) => ({
  get: async (key) => map.get(key),
  set: async (key, value) => void map.set(key, value),
  del: async (key) => void map.delete(key),
});
