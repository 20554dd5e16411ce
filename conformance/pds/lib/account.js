// An account on the PDS, as its owner uses it without OAuth: passwords, service auth, records, keys.

import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import path from "node:path";

import { Secp256k1Keypair } from "@atproto/crypto";
import plcLibrary from "@did-plc/lib";

export class Account {
  #network;
  #session;

  constructor(network, { did, handle, password }) {
    this.#network = network;
    Object.assign(this, { did, handle, password });
  }

  /** Calls a method of the PDS, or through it one of the service that `proxy` names (`did#service`). */
  async send(method, nsid, { params, body, proxy } = {}) {
    const url = new URL(`/xrpc/${nsid}`, this.#network.pdsUrl);
    for (const [name, value] of Object.entries(params ?? {})) url.searchParams.set(name, value);
    const headers = { authorization: `Bearer ${await this.#accessToken()}` };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (proxy !== undefined) headers["atproto-proxy"] = proxy;
    return fetch(url, { method, headers, body: body && JSON.stringify(body) });
  }

  /** The answer to such a call, which must be a success. */
  async ask(method, nsid, options) {
    const response = await this.send(method, nsid, options);
    const body = await response.json();
    if (!response.ok) throw new Error(`${nsid}: ${response.status} ${JSON.stringify(body)}`);
    return body;
  }

  /** A token by which this account speaks to another service; good for a minute. */
  async serviceAuth(aud, lxm) {
    const params = lxm === undefined ? { aud } : { aud, lxm };
    return (await this.ask("GET", "com.atproto.server.getServiceAuth", { params })).token;
  }

  async appPassword(name) {
    return (await this.ask("POST", "com.atproto.server.createAppPassword", { body: { name } })).password;
  }

  /** The record as anybody can read it; undefined if there is none. */
  async record(collection, rkey) {
    const query = new URLSearchParams({ repo: this.did, collection, rkey });
    const response = await fetch(`${this.#network.pdsUrl}/xrpc/com.atproto.repo.getRecord?${query}`);
    return response.ok ? (await response.json()).value : undefined;
  }

  /** Gives the account a new signing key, in its DID document and on the PDS, which reads the key for each token. */
  async rotateKey() {
    const { plcUrl, rotationKey, dataDir } = this.#network;
    const key = await Secp256k1Keypair.create({ exportable: true });
    const client = new plcLibrary.Client(plcUrl);
    await client.updateAtprotoKey(this.did, await Secp256k1Keypair.import(rotationKey), key.did());
    const shelf = createHash("sha256").update(this.did).digest("hex").slice(0, 2);
    await writeFile(path.join(dataDir, "actors", shelf, this.did, "key"), await key.export());
  }

  async #accessToken() {
    this.#session ??= this.#signIn();
    return (await this.#session).accessJwt;
  }

  async #signIn() {
    const response = await fetch(`${this.#network.pdsUrl}/xrpc/com.atproto.server.createSession`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ identifier: this.did, password: this.password }),
    });
    if (!response.ok) throw new Error(`sign-in of ${this.handle}: ${response.status} ${await response.text()}`);
    return response.json();
  }
}
