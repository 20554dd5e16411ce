// A stock sync server, as automerge-repo's documentation builds one: its WebSocket adapter, its file storage, its
// defaults. It is here to be compared with, so nothing in it is tuned, for or against.
//
//   node server.mjs --port 0 --data-dir DIRECTORY
//
// prints one JSON line {"url"} once it listens, and ends on SIGTERM after writing what it still holds in memory.

import { parseArgs } from "node:util";
import { WebSocketServer } from "ws";
import { Repo } from "@automerge/automerge-repo";
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket";
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs";

const { values: options } = parseArgs({
  options: { port: { type: "string", default: "0" }, "data-dir": { type: "string" } },
});
if (options["data-dir"] === undefined) {
  console.error("--data-dir is missing");
  process.exit(64);
}

const sockets = new WebSocketServer({ host: "127.0.0.1", port: Number(options.port), perMessageDeflate: false });
const repo = new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(options["data-dir"]),
  peerId: "node-peer",
  // A sync server answers for documents and offers none: without this every peer is sent every document.
  shareConfig: { announce: async () => false, access: async () => true },
});

sockets.on("listening", async () => {
  // The adapter takes connections only once the storage has said its id; a join before that is lost.
  await repo.storageId();
  setImmediate(() => {
    process.stdout.write(`${JSON.stringify({ url: `ws://127.0.0.1:${sockets.address().port}` })}\n`);
  });
});

process.on("SIGTERM", async () => {
  await repo.flush().catch(() => {});
  process.exit(0);
});
