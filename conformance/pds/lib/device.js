// An app on one device that speaks XRPC to the server: it proves its DPoP key with every call (RFC 9449).

import { createHash, randomUUID } from "node:crypto";

import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from "jose";

import { documents, faultOf, lexicons } from "./lexicons.js";

/** The methods of the server. */
export const NSID = "xyz.groundmist.sync";

export class Device {
  #key;
  #nonce;
  /** What the server gave it: tokens and what they are good for. */
  session;

  static async with(server, { alg = "ES256" } = {}) {
    const device = new Device();
    const { privateKey, publicKey } = await generateKeyPair(alg);
    device.#key = privateKey;
    device.alg = alg;
    device.server = server;
    device.jwk = await exportJWK(publicKey);
    device.thumbprint = await calculateJwkThumbprint(device.jwk);
    return device;
  }

  /** A proof for a call of this method; `claims` in place of what is usual. */
  async proof(method, nsid, { token, ...claims } = {}) {
    const payload = {
      jti: randomUUID(),
      iat: Math.floor(Date.now() / 1_000),
      htm: method,
      htu: `${this.server.url}/xrpc/${nsid}`,
      nonce: this.#nonce,
      ath: token && createHash("sha256").update(token).digest("base64url"),
      ...claims,
    };
    const proof = await new SignJWT(payload).setProtectedHeader({ typ: "dpop+jwt", alg: this.alg, jwk: this.jwk }).sign(this.#key);
    return this.server.secrets.add("DPoP proof", proof);
  }

  /**
   * Calls a method by its last name, with a token of this device (`DPoP`), or with service auth (`Bearer`).
   * A first answer that wants a nonce is followed by a second try, as by any DPoP client.
   */
  async call(name, { token = this.session?.accessToken, scheme = "DPoP", ...call } = {}) {
    const first = await this.callOnce(name, { token, scheme, ...call });
    if (first.status !== 401 || first.body.error !== "UseDpopNonce") return first;
    return this.callOnce(name, { token, scheme, ...call });
  }

  /** The same without a second try, and with a `proof` that is given, if one is. */
  async callOnce(name, { token, scheme, params, input, proof }) {
    const nsid = `${NSID}.${name}`;
    const method = documents.get(nsid).defs.main.type === "query" ? "GET" : "POST";
    if (input !== undefined) lexicons.assertValidXrpcInput(nsid, input);
    const url = new URL(`${this.server.url}/xrpc/${nsid}`);
    for (const [key, value] of Object.entries(params ?? {})) url.searchParams.set(key, value);
    const headers = { dpop: proof ?? (await this.proof(method, nsid, { token })) };
    if (token) headers.authorization = `${scheme} ${this.server.secrets.add(`${scheme} token`, token)}`;
    if (input !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(url, { method, headers, body: input && JSON.stringify(input) });
    this.#nonce = response.headers.get("dpop-nonce") ?? this.#nonce;
    return checked(this.server, nsid, response);
  }

  /** Asks for access with service auth; the session, if there is one, is this device's from then on. */
  async requestAccess(token, { clientId, groups, ...rest }) {
    const input = { clientId, groups: groups.map((group) => ({ group, access: "write" })), ...rest };
    const answer = await this.call("requestAccess", { token, scheme: "Bearer", input });
    if (answer.status === 200 && answer.body.session) this.keep(answer.body.session);
    return answer;
  }

  /** Keeps the tokens of this answer. */
  keep(session) {
    this.session = { ...this.session, ...session };
    return this.session;
  }

  /** A ticket for one WebSocket of this group. */
  async ticket(group) {
    const { status, body } = await this.call("createTicket", { input: { group } });
    if (status !== 200) throw new Error(`createTicket: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  set nonce(nonce) {
    this.#nonce = nonce;
  }

  get nonce() {
    return this.#nonce;
  }
}

/** Calls a method by its last name through the account's PDS, which signs the service auth and drops most headers. */
export async function throughPds(server, account, name, { input } = {}) {
  const nsid = `${NSID}.${name}`;
  if (input !== undefined) lexicons.assertValidXrpcInput(nsid, input);
  const response = await account.send(input === undefined ? "GET" : "POST", nsid, { proxy: server.service, body: input });
  return checked(server, nsid, response);
}

/** The answer of a method, which is what its lexicon says; secrets in it are remembered. */
export async function checked(server, nsid, response) {
  const body = await response.json();
  const { session = body } = body;
  for (const name of ["accessToken", "refreshToken", "ticket"]) {
    if (typeof session[name] === "string") server.secrets.add(name, session[name]);
  }
  const fault = faultOf(nsid, response.status, body);
  if (fault) throw new Error(fault);
  return { status: response.status, headers: response.headers, body };
}
