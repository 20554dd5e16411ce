// A cable between one client and the server that a test can pull out: a TCP relay on loopback.
// Going offline this way leaves the client stock; it sees what a dead network shows it.

import { once } from "node:events";
import net from "node:net";

export class Link {
  #sockets = new Set();
  #listener;
  #target;

  /** Plugs in a new cable that ends at `port`. */
  static async to(port) {
    const link = new Link();
    link.#target = port;
    link.port = 0;
    await link.plugIn();
    return link;
  }

  /** Connections are relayed from now on. */
  async plugIn() {
    this.#listener = net.createServer((near) => this.#relay(near));
    this.#listener.listen(this.port, "127.0.0.1");
    await once(this.#listener, "listening");
    this.port = this.#listener.address().port;
  }

  /** Cuts every connection; new ones are refused. */
  async pullOut() {
    if (!this.#listener) return;
    const closed = once(this.#listener, "close");
    this.#listener.close();
    this.#listener = undefined;
    for (const socket of this.#sockets) socket.destroy();
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
