// One app on one device: a stock Repo of one generation behind its own pullable cable.
// The generations differ in how a document is found and read; tests see one shape.

import WebSocket from "ws";

import { Link } from "./link.js";
import { until } from "./wait.js";

// 2.6 asks for Node 22.13. What it misses in Node 20 are these two; with them it runs there as well.
globalThis.WebSocket ??= WebSocket;
Promise.withResolvers ??= function withResolvers() {
  let resolve, reject;
  const promise = new this((onResolve, onReject) => ([resolve, reject] = [onResolve, onReject]));
  return { promise, resolve, reject };
};

/** Generations of automerge-repo under test, oldest first. */
export const GENERATIONS = ["1.2.1", "2.5.6", "2.6.0-alpha.3"];

const RETRY_MS = 250;

/** The packages of one generation, each with its own Automerge. */
export const packagesOf = (generation) => import(`../clients/v${generation}/index.js`);

/** A document that the server says it does not have. */
export class Unavailable extends Error {}

export class Client {
  #link;

  /**
   * Starts a Repo and waits until the server has greeted it, unless `offline`.
   * `repo` takes further Repo options (storage, peerId, enableRemoteHeadsGossiping).
   */
  static async connect(generation, server, { token = server.token, offline = false, direct = false, repo = {} } = {}) {
    const { Automerge, automergeRepo, BrowserWebSocketClientAdapter } = await packagesOf(generation);
    const client = new Client();
    client.generation = generation;
    client.A = Automerge;
    client.hexHeads = (heads) => [...(automergeRepo.decodeHeads?.(heads) ?? heads)].sort();
    if (!direct) client.#link = await Link.to(server.port);
    if (offline) await client.#link.pullOut();
    const url = new URL(server.urlFor(token));
    url.port = client.#link?.port ?? server.port;
    client.adapter = new BrowserWebSocketClientAdapter(url.href, RETRY_MS);
    calm(client.adapter);
    client.repo = new automergeRepo.Repo({ network: [client.adapter], ...repo });
    if (!offline) await client.connected();
    return client;
  }

  /** Waits until the server has greeted this client. */
  async connected() {
    await until("the server's greeting", () => this.repo.peers.length > 0);
  }

  /** Pulls the cable and waits until the Repo has noticed. */
  async goOffline() {
    await this.#link.pullOut();
    await until("the Repo noticing that it is offline", () => this.repo.peers.length === 0);
  }

  /** Plugs the cable in and waits for the server's greeting. */
  async goOnline() {
    this.#link.plugIn();
    await this.connected();
  }

  /** A new document with this content. */
  create(content) {
    return this.repo.create(content);
  }

  /** The document's handle once its content is here. Throws `Unavailable` if the server does not have it. */
  async find(url) {
    if (this.generation.startsWith("1.")) {
      const handle = this.repo.find(url);
      await handle.whenReady(["ready", "unavailable"]);
      if (handle.isUnavailable()) throw new Unavailable(url);
      return handle;
    }
    try {
      return await this.repo.find(url);
    } catch (cause) {
      if (/unavailable/i.test(cause.message)) throw new Unavailable(url, { cause });
      throw cause;
    }
  }

  /** Whether the server says that it does not have this document. */
  async isUnavailable(url) {
    try {
      await this.find(url);
      return false;
    } catch (error) {
      if (error instanceof Unavailable) return true;
      throw error;
    }
  }

  /** The document's content now. */
  doc(handle) {
    return this.generation.startsWith("1.") ? handle.docSync() : handle.doc();
  }

  /** The content as plain JSON, counters as numbers. */
  json(handle) {
    return JSON.parse(JSON.stringify(this.doc(handle) ?? null));
  }

  /** The document's heads in hex, sorted: comparable between generations. */
  heads(handle) {
    return [...this.A.getHeads(this.doc(handle))].sort();
  }

  /** Waits until the document here satisfies `condition`, and returns it as plain JSON. */
  async sees(handle, what, condition, within) {
    try {
      return await until(what, () => this.doc(handle) !== undefined && condition(this.json(handle)) && this.json(handle), within);
    } catch (error) {
      throw new Error(`${error.message}; the document is ${JSON.stringify(this.json(handle))?.slice(0, 500)}`);
    }
  }

  /** The storage id that the server told this client. */
  serverStorageId() {
    return this.repo.getStorageIdOfPeer(this.repo.peers[0]);
  }

  /** Whether the server has acknowledged everything in this document: "saved on my server". */
  isSaved(handle) {
    const remote = handle.getRemoteHeads(this.serverStorageId());
    return remote !== undefined && this.hexHeads(remote).join() === this.heads(handle).join();
  }

  /** Waits until the server has acknowledged everything in this document. */
  async saved(handle, within) {
    await until("the server's acknowledgement of the document's heads", () => this.isSaved(handle), within);
  }

  /** Leaves for good, as a closed tab does. */
  async close() {
    this.adapter.connect = () => {};
    const { socket } = this.adapter;
    await this.#link?.end();
    socket?.close();
  }
}

/**
 * Keeps the adapters of 1.x and 2.5 from throwing out of a timer or socket event while the network is down: on any
 * socket error but ECONNREFUSED, and on a message sent into a closing socket. An app only logs that (2.6 drops
 * both by itself); in a test process it would end the run.
 */
export function calm(adapter) {
  const send = adapter.send.bind(adapter);
  adapter.onError = () => {};
  adapter.send = (message) => {
    if (!adapter.socket || adapter.socket.readyState === WebSocket.OPEN) send(message);
  };
  // An adapter that is told to disconnect while it still connects stops listening first; what its socket then has to
  // say is an event without a listener: nothing in a browser, the end of the process in Node.
  const disconnect = adapter.disconnect.bind(adapter);
  adapter.disconnect = () => {
    adapter.socket?.addEventListener("error", () => {});
    disconnect();
  };
}

/** Waits until all of these (client, handle) pairs hold the same heads. */
export async function converged(pairs, within) {
  const heads = () => pairs.map(([client, handle]) => (client.doc(handle) ? client.heads(handle).join() : undefined));
  await until("all clients holding the same heads", () => new Set(heads()).size === 1 && heads()[0] !== undefined, within);
}
