// A device at POST /authenticate: a key, an access token that is bound to it, and proofs.

import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";

import { request } from "./request.js";

const sha256 = (text) => createHash("sha256").update(text).digest("base64url");
const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const inSeconds = () => Math.floor(Date.now() / 1_000);

export class Device {
  #key;
  #jwk;
  #nonce;

  /** A device of `owner`, whose access token nobody has signed: it is but a hint to the server. */
  constructor(owner) {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    this.#key = privateKey;
    const { crv, kty, x, y } = publicKey.export({ format: "jwk" });
    this.#jwk = { crv, kty, x, y };
    const claims = {
      iss: "https://pds.example.com",
      sub: owner,
      client_id: "https://app.example.dev/client-metadata.json",
      exp: inSeconds() + 600,
      cnf: { jkt: sha256(JSON.stringify(this.#jwk)) },
    };
    this.accessToken = `${encoded({ typ: "at+jwt", alg: "ES256" })}.${encoded(claims)}.${sha256(randomUUID())}`;
  }

  /** A proof of this request, with the nonce of the last answer. Source: RFC 9449, section 4.2. */
  proof(htu) {
    const claims = { htm: "POST", htu, jti: randomUUID(), iat: inSeconds(), ath: sha256(this.accessToken), nonce: this.#nonce };
    const signed = `${encoded({ typ: "dpop+jwt", alg: "ES256", jwk: this.#jwk })}.${encoded(claims)}`;
    const signature = sign("sha256", Buffer.from(signed), { key: this.#key, dsaEncoding: "ieee-p1363" });
    return `${signed}.${signature.toString("base64url")}`;
  }

  /** Asks to be let in, and takes the nonce of the answer. */
  async authenticate(proxy, { origin, proof = this.proof(`${proxy.url}/authenticate`) } = {}) {
    const answer = await request(proxy, "/authenticate", {
      method: "POST",
      headers: {
        Authorization: `DPoP ${this.accessToken}`,
        DPoP: proof,
        "Content-Type": "application/json",
        ...(origin && { Origin: origin }),
      },
      body: JSON.stringify({ lexiconAuthorityDomain: "test.example.notes", rootDocUrl: null }),
    });
    this.#nonce = answer.headers["dpop-nonce"];
    return { ...answer, proof };
  }
}
