// The network around our server, on loopback: a real PDS, a PLC directory, a host of web apps. One serves a whole run.

import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import process from "node:process";
import readline from "node:readline";

import { freePort } from "../../lib/port.js";
import { Account } from "./account.js";

/** Where apps with a metadata document live, as far as the PDS and our server can tell. */
export const APP_ORIGIN = "https://app.groundmist.dev";

// One of each file that changes an account: files run beside each other.
const ACCOUNTS = ["alice", "bob", "carol", "dave"];
const START_MS_MAX = 60_000;
const VARIABLE = "GROUNDMIST_TEST_NETWORK";

export class Network {
  #child;

  constructor(info) {
    Object.assign(this, info);
    for (const [name, account] of Object.entries(info.accounts)) this[name] = new Account(this, account);
  }

  /** Starts a network and has the processes that are started from now on find it. */
  static async start() {
    const [PDS_PORT, PLC_PORT, APP_HOST_PORT] = await Promise.all([freePort(), freePort(), freePort()]);
    const child = spawn(process.execPath, [path.join(import.meta.dirname, "network-process.js")], {
      stdio: ["pipe", "pipe", "pipe"],
      env: {
        PATH: process.env.PATH,
        LOG_ENABLED: "false",
        FETCH_MAP: `${APP_ORIGIN}=http://127.0.0.1:${APP_HOST_PORT}`,
        ACCOUNTS: ACCOUNTS.join(),
        PDS_PORT,
        PLC_PORT,
        APP_HOST_PORT,
      },
    });
    // the PDS warns of its own slowness, which is nobody's fault here
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-4_000)));
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
    const [line] = await Promise.race([
      once(readline.createInterface({ input: child.stdout }), "line"),
      once(child, "exit").then(([code, signal]) => {
        throw new Error(`the PDS ended (${signal ?? code}) before it was ready:\n${said}`);
      }),
    ]);
    clearTimeout(timer);
    process.env[VARIABLE] = line;
    const network = new Network(JSON.parse(line));
    network.#child = child;
    return network;
  }

  /** The network that this run has started. */
  static ofRun() {
    const line = process.env[VARIABLE];
    if (!line) throw new Error("there is no network: start the cases by run.js");
    return new Network(JSON.parse(line));
  }

  async stop() {
    const gone = once(this.#child, "exit");
    this.#child.stdin.end();
    await gone;
  }

  /** Where our server finds what is on this network alone: it trusts no other name and no http. */
  get hostMap() {
    const onLoopback = (url) => `${url}=${url.replace("localhost", "127.0.0.1")}`;
    return [`${APP_ORIGIN}=${this.appHostUrl}`, onLoopback(this.pdsUrl), onLoopback(this.plcUrl)].join();
  }

  /** Puts a document on the host of the apps; its address there. */
  async host(name, document) {
    const response = await fetch(`${this.appHostUrl}/${name}`, { method: "PUT", body: JSON.stringify(document) });
    if (!response.ok) throw new Error(`the host of the apps: ${response.status}`);
    return `${APP_ORIGIN}/${name}`;
  }
}
