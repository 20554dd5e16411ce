// A port for a process whose address has to be known before it starts.

import { once } from "node:events";
import net from "node:net";

/** A TCP port that nobody listens on. */
export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
