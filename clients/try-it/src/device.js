// One "device": a Repo of its own with its own connection, which can be switched off and on.

import { Repo } from "@automerge/automerge-repo/slim";
import { BrowserWebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";

const RETRY_MS = 1_000;

export class Device extends EventTarget {
  #adapter;
  #storageId;
  #socketUrl;
  #wasConnected = false;

  /** Switches a new device on. It keeps nothing: what a reload shows came from the server. */
  constructor(socketUrl) {
    super();
    this.#socketUrl = socketUrl;
    this.repo = new Repo();
    this.repo.networkSubsystem.on("peer", ({ peerId }) => {
      this.#wasConnected = true;
      this.#storageId = this.repo.getStorageIdOfPeer(peerId);
      this.#changed();
    });
    this.repo.networkSubsystem.on("peer-disconnected", () => this.#changed());
    this.switchOn();
  }

  get isOn() {
    return this.#adapter !== undefined;
  }

  get isConnected() {
    return this.repo.peers.length > 0;
  }

  /** "connected", "connecting" (not yet refused), or "offline" (switched off, or the server is away). */
  get state() {
    if (this.isConnected) return "connected";
    return this.isOn && !this.#wasConnected ? "connecting" : "offline";
  }

  /** Resolves as soon as the server has greeted this device. */
  connected() {
    return new Promise((resolve) => {
      const look = () => this.isConnected && resolve();
      this.addEventListener("change", look);
      look();
    });
  }

  switchOn() {
    this.#wasConnected = false;
    this.#adapter = new BrowserWebSocketClientAdapter(this.#socketUrl, RETRY_MS);
    this.repo.networkSubsystem.addNetworkAdapter(this.#adapter);
    this.#changed();
  }

  switchOff() {
    const adapter = this.#adapter;
    this.#adapter = undefined;
    // a reconnect may be on its timer already, and disconnect() does not clear that
    adapter.connect = () => {};
    this.repo.networkSubsystem.removeNetworkAdapter(adapter);
    this.#changed();
  }

  /** Whether the server holds everything that this device has in the document. */
  isSaved(handle) {
    const server = this.#storageId && handle.getRemoteHeads(this.#storageId);
    return server !== undefined && [...server].sort().join() === [...handle.heads()].sort().join();
  }

  #changed() {
    // after the Repo's own listeners, which keep the list of peers
    queueMicrotask(() => this.dispatchEvent(new Event("change")));
  }
}
