// The server under test with an owner, and its command line beside it while it runs.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";

import { freePort } from "../../lib/port.js";
import { serverBinary } from "../../lib/server.js";
import { until } from "../../lib/wait.js";
import { Secrets } from "./secrets.js";

const START_MS_MAX = 15_000;

/** A command that did not end well: how it ended and what it said. */
class CommandFailed extends Error {}

export class Server {
  #child;
  #environment;
  /** Everything that it has said so far, in all its lives. */
  output = "";
  secrets = new Secrets();

  /** Starts a server of `owner` with a fresh data directory; `settings` are further variables. */
  static async start(network, owner, settings = {}) {
    const server = new Server();
    // first a port, because its address is among the settings
    server.port = await freePort();
    server.url = `http://localhost:${server.port}`;
    server.host = `localhost:${server.port}`;
    // the colon of a port is escaped in a did:web
    server.did = `did:web:localhost%3A${server.port}`;
    server.service = `${server.did}#groundmist_sync`;
    server.dataDir = await mkdtemp(path.join(tmpdir(), "groundmist-sync-"));
    server.#environment = {
      PATH: process.env.PATH,
      DATA_DIR: server.dataDir,
      PORT: String(server.port),
      ATPROTO_DID: owner.did,
      GROUNDMIST_SYNC_PUBLIC_URL: server.url,
      GROUNDMIST_SYNC_PLC_URL: network.plcUrl,
      GROUNDMIST_SYNC_TEST_HOST_MAP: network.hostMap,
      GROUNDMIST_SYNC_LOG: "debug",
      ...settings,
    };
    await server.#spawn();
    return server;
  }

  async #spawn() {
    const child = spawn(serverBinary(), ["serve"], {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: this.dataDir,
      env: this.#environment,
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.output += text));
    }
    await until(
      "the server answering",
      async () => {
        if (child.exitCode !== null) throw new Error(`the server ended (${child.exitCode}):\n${this.output.slice(-4_000)}`);
        const answer = await fetch(`http://127.0.0.1:${this.port}/xrpc/_health`).catch(() => undefined);
        return answer?.ok;
      },
      START_MS_MAX,
    );
  }

  /** What a command of groundmist-sync prints, with the server's settings. */
  async cli(...args) {
    return this.cliWith({}, ...args);
  }

  /** The same with `input` as its standard input, and with further variables, or fewer. */
  async cliWith({ input, variables = {} }, ...args) {
    const options = { cwd: this.dataDir, env: { ...this.#environment, ...variables } };
    return new Promise((resolve, reject) => {
      const child = execFile(serverBinary(), args, options, (error, stdout, stderr) => {
        if (error) reject(new CommandFailed(`groundmist-sync ${args.join(" ")}: exit ${error.code}: ${stderr}${stdout}`));
        else resolve(stdout);
      });
      child.stdin.end(input);
    });
  }

  /** What a command prints for programs. */
  async cliJson(...args) {
    return JSON.parse(await this.cli(...args, "--json"));
  }

  /** Opens the pairing window. */
  async openPairing() {
    await this.cli("devices", "open");
  }

  async closePairing() {
    await this.cli("devices", "close");
  }

  /** The requests that wait for the owner. */
  async pending() {
    return (await this.cliJson("devices", "pending")).filter(({ state }) => state === "waiting");
  }

  /** The one request that waits for the owner. */
  async onePending() {
    const pending = await this.pending();
    if (pending.length !== 1) throw new Error(`${pending.length} pending requests: ${JSON.stringify(pending)}`);
    return pending[0];
  }

  /** Approves the one request that waits for the owner; the id of its device. */
  async approveOne(...options) {
    const { id } = await this.onePending();
    await this.cli("devices", "approve", id, ...options);
    return id;
  }

  /** The address an app with this token connects to. */
  urlFor(token) {
    return `ws://127.0.0.1:${this.port}/?token=${encodeURIComponent(token)}`;
  }

  async stop() {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGTERM");
    await gone;
  }

  /** Ends the server and starts it again with the same data. */
  async restart() {
    await this.stop();
    await this.#spawn();
  }

  /** Ends the server and removes its data. */
  async dispose() {
    await this.stop();
    await rm(this.dataDir, { recursive: true, force: true });
  }
}
