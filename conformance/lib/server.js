// A groundmist-sync of our own: its own data directory, its own port, killed at the end.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";
import { promisify } from "node:util";

const START_MS_MAX = 10_000;
const STOP_MS_MAX = 8_000;

/** The binary under test; an error that says what to do when it is not named. */
export function serverBinary() {
  const binary = process.env.GROUNDMIST_SYNC_BIN;
  if (!binary) {
    throw new Error("set GROUNDMIST_SYNC_BIN to the groundmist-sync binary, for example ../target/debug/groundmist-sync");
  }
  return path.resolve(binary);
}

export class Server {
  #child;
  #stderr = "";

  /** Starts a server on a free port, with a fresh data directory. */
  static async start({ group = "test.example.notes" } = {}) {
    const server = new Server();
    server.group = group;
    server.dataDir = await mkdtemp(path.join(tmpdir(), "groundmist-sync-"));
    await server.#spawn(0);
    return server;
  }

  async #spawn(port) {
    const child = spawn(
      serverBinary(),
      ["dev", "--json", "--port", String(port), "--data-dir", this.dataDir, "--group", this.group],
      { stdio: ["ignore", "pipe", "pipe"], cwd: this.dataDir },
    );
    this.#child = child;
    child.stderr.on("data", (chunk) => (this.#stderr = (this.#stderr + chunk).slice(-4_000)));
    const { url, token, tryUrl } = JSON.parse(await this.#firstLine(child));
    this.port = Number(new URL(url).port);
    // A restart may mint another token; the first one must stay good, and it is the one that clients hold.
    this.url ??= url;
    this.token ??= token;
    this.tryUrl ??= tryUrl;
  }

  async #firstLine(child) {
    const lines = readline.createInterface({ input: child.stdout });
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
    try {
      const line = await Promise.race([
        once(lines, "line").then(([text]) => text),
        once(child, "exit").then(([code, signal]) => {
          throw new Error(`the server ended (${signal ?? code}) before it was ready:\n${this.#stderr}`);
        }),
      ]);
      child.stdout.resume();
      return line;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The address an app with this token connects to. */
  urlFor(token) {
    return `ws://127.0.0.1:${this.port}/?token=${encodeURIComponent(token)}`;
  }

  /** Mints a token on the server's own machine, while it runs. */
  async mintToken({ group = this.group, readOnly = false } = {}) {
    const flags = ["token", "add", "--group", group, "--data-dir", this.dataDir];
    if (readOnly) flags.push("--read-only");
    const { stdout } = await promisify(execFile)(serverBinary(), flags, { cwd: this.dataDir });
    return stdout.trim();
  }

  /** Ends the process with `signal` and waits until it is gone. */
  async stop(signal = "SIGTERM") {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
    await gone;
    clearTimeout(timer);
    if (signal !== "SIGKILL" && child.signalCode === "SIGKILL") {
      throw new Error(`the server did not end within ${STOP_MS_MAX} ms of ${signal}`);
    }
  }

  /** Starts again on the same port with the same data. */
  async startAgain() {
    await this.#spawn(this.port);
  }

  /** Ends the server and removes its data. */
  async dispose() {
    await this.stop("SIGKILL");
    await rm(this.dataDir, { recursive: true, force: true });
  }
}
