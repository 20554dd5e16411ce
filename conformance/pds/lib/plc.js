// A PLC directory in memory. Whether an operation is valid is decided by the real @did-plc/lib.
//
// @did-plc/server of npm (0.0.1, 2023) renders DID documents as nobody does any more: relative key ids and keys
// without a multicodec. This one renders them as plc.directory does today.

import http from "node:http";

import plcLibrary from "@did-plc/lib";

const DID = /^did:plc:[a-z2-7]{24}$/;

/** An answer that is no success. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class PlcDirectory {
  #logs = new Map();
  #server = http.createServer((request, response) => this.#serve(request, response));

  async listen(port) {
    await new Promise((resolve, reject) => this.#server.on("error", reject).listen(port, resolve));
  }

  close() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #serve(request, response) {
    // Browser clients resolve DIDs themselves.
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("access-control-allow-headers", "*");
    response.setHeader("content-type", "application/json");
    const [status, body] = await this.#answer(request).then(
      (value) => [200, value],
      (error) => [error.status ?? 400, { message: String(error.message) }],
    );
    response.writeHead(status).end(JSON.stringify(body));
  }

  async #answer(request) {
    const [, did, ...rest] = decodeURIComponent(request.url).split("/");
    if (!DID.test(did)) throw new Refusal(404, `not a did:plc: ${did}`);
    if (request.method === "OPTIONS") return {};
    if (request.method === "POST") return this.#append(did, JSON.parse(await text(request)));
    const log = this.#live(did);
    if (log.length === 0) throw new Refusal(404, `DID not registered: ${did}`);
    switch (rest.join("/")) {
      case "log/last":
        return log.at(-1);
      case "log":
        return log;
      case "log/audit":
        return this.#logs.get(did).map((entry) => ({ ...entry, cid: String(entry.cid) }));
      case "data":
        return this.#data(did);
      case "":
        return didDocument(await this.#data(did));
      default:
        throw new Refusal(404, "not found");
    }
  }

  async #append(did, operation) {
    const entries = this.#logs.get(did) ?? [];
    const known = entries.map((entry) => ({ ...entry, createdAt: new Date(entry.createdAt) }));
    const { nullified } = await plcLibrary.assureValidNextOp(did, known, operation);
    const { cid } = await plcLibrary.getLastOpWithCid([operation]);
    for (const entry of entries) entry.nullified ||= nullified.some((other) => other.equals(entry.cid));
    const entry = { did, operation, cid, nullified: false, createdAt: new Date().toISOString() };
    this.#logs.set(did, [...entries, entry]);
    return {};
  }

  #live(did) {
    return (this.#logs.get(did) ?? []).filter((entry) => !entry.nullified).map((entry) => entry.operation);
  }

  async #data(did) {
    const data = await plcLibrary.validateOperationLog(did, this.#live(did));
    if (!data) throw new Refusal(410, `DID not available: ${did}`);
    return data;
  }
}

function didDocument({ did, alsoKnownAs, verificationMethods, services }) {
  return {
    "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
    id: did,
    alsoKnownAs,
    verificationMethod: Object.entries(verificationMethods).map(([name, didKey]) => ({
      id: `${did}#${name}`,
      type: "Multikey",
      controller: did,
      publicKeyMultibase: didKey.slice("did:key:".length),
    })),
    // relative, as in the live directory
    service: Object.entries(services).map(([name, { type, endpoint }]) => ({ id: `#${name}`, type, serviceEndpoint: endpoint })),
  };
}

async function text(request) {
  let body = "";
  for await (const chunk of request) body += chunk;
  return body;
}
