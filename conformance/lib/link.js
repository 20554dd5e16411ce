// A cable between one client and the server that a test can pull out: a TCP relay on loopback.
// Going offline this way leaves the client stock; it sees what a dead network shows it.

import { once } from "node:events";
import net from "node:net";

export class Link {
  #sockets = new Set();
  #listener;
  #target;
  #isIn = true;

  /** Plugs in a new cable that ends at `port`. */
  static async to(port) {
    const link = new Link();
    link.#target = port;
    link.#listener = net.createServer((near) => (link.#isIn ? link.#relay(near) : near.resetAndDestroy()));
    link.#listener.listen(0, "127.0.0.1");
    await once(link.#listener, "listening");
    link.port = link.#listener.address().port;
    return link;
  }

  /** Connections are relayed from now on. */
  plugIn() {
    this.#isIn = true;
  }

  /** Cuts every connection, and new ones at once. The port stays ours: another client's cable would get it otherwise. */
  async pullOut() {
    this.#isIn = false;
    const closed = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once("close", resolve)));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(closed);
  }

  /** Throws the cable away. */
  async end() {
    if (!this.#listener.listening) return;
    const closed = once(this.#listener, "close");
    this.#listener.close();
    await this.pullOut();
    await closed;
  }

  #relay(near) {
    const far = net.connect(this.#target, "127.0.0.1");
    for (const [socket, other] of [[near, far], [far, near]]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      // an error is followed by "close", which is where both ends are let go
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
    near.pipe(far).pipe(near);
  }
}
