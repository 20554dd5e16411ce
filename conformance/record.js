// Records what stock clients and the server say to each other, for the corpus of fuzz/.
//
//   GROUNDMIST_SYNC_BIN=../target/debug/groundmist-sync node record.js FOLDER
//
// A short day of two devices, once for each generation. Each frame goes to FOLDER/wire, the sync messages in them to
// FOLDER/sync_message, and the chunks in those to FOLDER/chunk: named by generation, device, direction and kind, and
// numbered in the order of the day. What is worth keeping is then copied into fuzz/corpus by hand.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";

import { decode } from "cbor-x";
import WebSocket, { WebSocketServer } from "ws";

import { Client, converged, GENERATIONS } from "./lib/client.js";
import { Server } from "./lib/server.js";
import { until } from "./lib/wait.js";

/** A recording relay in front of a server; it stands in for one in `Client.connect`. */
class Tape {
  frames = [];

  static async before(server, name) {
    const tape = new Tape();
    tape.name = name;
    tape.server = server;
    tape.token = server.token;
    tape.listener = new WebSocketServer({ port: 0, host: "127.0.0.1" });
    await once(tape.listener, "listening");
    tape.port = tape.listener.address().port;
    tape.listener.on("connection", (near, request) => tape.#relay(near, request.url));
    return tape;
  }

  urlFor(token) {
    return `ws://127.0.0.1:${this.port}/?token=${encodeURIComponent(token)}`;
  }

  #relay(near, url) {
    const far = new WebSocket(`ws://127.0.0.1:${this.server.port}${url}`);
    const opened = once(far, "open");
    for (const [from, to, direction] of [[near, far, "up"], [far, near, "down"]]) {
      from.on("message", async (frame) => {
        this.frames.push({ direction, frame });
        await opened;
        to.send(frame);
      });
      from.on("close", () => to.close());
      from.on("error", () => {});
    }
  }
}

/** What the devices do; `repo` of the second one watches what the server has stored. */
async function aDay(generation, phone, laptop) {
  const one = await Client.connect(generation, phone, { direct: true });
  const two = await Client.connect(generation, laptop, { direct: true, repo: { enableRemoteHeadsGossiping: true } });
  two.repo.subscribeToRemotes([two.serverStorageId()]);
  const notes = one.create({ title: "notes", items: [] });
  notes.change((doc) => doc.items.push("milk"));
  const theirs = await two.find(notes.url);
  await two.sees(theirs, "the first item", (doc) => doc.items?.includes("milk"));
  theirs.change((doc) => doc.items.push("bread"));
  notes.change((doc) => (doc.title = "shopping"));
  await converged([[one, notes], [two, theirs]]);
  // long enough for Automerge to deflate it
  notes.change((doc) => (doc.text = "a long line of a long text, ".repeat(12)));
  await converged([[one, notes], [two, theirs]]);
  const heard = new Promise((resolve) => theirs.on("ephemeral-message", resolve));
  await until("the cursor's arrival", () => {
    notes.broadcast({ cursor: 7 });
    return Promise.race([heard.then(() => true), new Promise((resolve) => setTimeout(resolve, 50, false))]);
  });
  await two.isUnavailable("automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu");
  await one.close();
  await two.close();
  // a device that has lost everything
  const three = await Client.connect(generation, laptop, { direct: true });
  const again = await three.find(notes.url);
  await three.sees(again, "the document", (doc) => doc.title === "shopping");
  await three.close();
}

async function save(folder, kind, name, bytes) {
  await mkdir(path.join(folder, kind), { recursive: true });
  await writeFile(path.join(folder, kind, name), bytes);
}

/** The entries of a sync message that are chunks. */
function chunksOf(A, data) {
  try {
    return A.decodeSyncMessage(data).changes;
  } catch {
    return [];
  }
}

async function keep(folder, generation, A, tape) {
  const seen = new Set();
  for (const [n, { direction, frame }] of tape.frames.entries()) {
    const message = decode(frame);
    const name = `v${generation}-${tape.name}-${String(n).padStart(2, "0")}-${direction}-${message.type}`;
    await save(folder, "wire", name, frame);
    if (!["sync", "request"].includes(message.type)) continue;
    await save(folder, "sync_message", name, message.data);
    for (const [at, chunk] of chunksOf(A, message.data).entries()) {
      const hash = createHash("sha256").update(chunk).digest("hex");
      if (!seen.has(hash)) await save(folder, "chunk", `${name}-${at}`, chunk);
      seen.add(hash);
    }
  }
}

const [folder] = process.argv.slice(2);
if (!folder) throw new Error("usage: node record.js FOLDER");
for (const generation of GENERATIONS) {
  const server = await Server.start();
  try {
    const tapes = await Promise.all(["phone", "laptop"].map((name) => Tape.before(server, name)));
    await aDay(generation, ...tapes);
    const { Automerge } = await import(`./clients/v${generation}/index.js`);
    for (const tape of tapes) await keep(folder, generation, Automerge, tape);
    console.log(`${generation}: ${tapes.map((tape) => `${tape.frames.length} frames of the ${tape.name}`).join(", ")}`);
  } finally {
    await server.dispose();
  }
}
process.exit(0);
