// Stock apps in a real browser: bundled, served, signed in at the PDS, and spoken to through `window.app`.

import http from "node:http";
import path from "node:path";
import { once } from "node:events";

import { build } from "esbuild";
import { chromium } from "playwright-core";

import { until } from "../../lib/wait.js";
import { consent } from "./consent.js";
import { loopbackMetadata, SCOPE, webMetadata } from "./metadata.js";
import { APP_ORIGIN } from "./network.js";

const HTML = '<!doctype html><meta charset="utf-8"><title>app</title><script src="/app.js"></script>';
const WAIT_MS = 15_000;

/** Generations of @atproto/oauth-client-browser, by the name under which package.json has them. */
export const GENERATIONS = {
  "0.5.3": "@atproto/oauth-client-browser",
  "0.3.10": "@atproto/oauth-client-browser-0.3",
};

/** A browser and the apps in it. */
export class Browser {
  #chromium;
  #scripts = new Map();
  #closing = [];

  static async launch() {
    const browser = new Browser();
    browser.#chromium = await chromium.launch({
      executablePath: "/usr/bin/chromium",
      args: [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        // The user's "allow this site to reach devices on this network": there is nobody to ask. It is our tests that
        // have the server on loopback; a server with a public address is not asked for.
        "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
      ],
    });
    return browser;
  }

  /** A page of an app of its own at `http://127.0.0.1:port`, with the loopback client id of that origin. */
  async loopbackPage(generation) {
    const script = await this.#script(generation);
    const server = http.createServer((request, response) => {
      if (request.url === "/app.js") response.writeHead(200, { "content-type": "text/javascript" }).end(script);
      else response.writeHead(200, { "content-type": "text/html" }).end(HTML);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    this.#closing.push(() => (server.closeAllConnections(), server.close()));
    return this.#open(`http://127.0.0.1:${server.address().port}`);
  }

  /** A page at the https origin of the apps that have a metadata document. */
  async httpsPage(generation) {
    const script = await this.#script(generation);
    const page = await this.#page();
    // Not by Playwright's own routes: with one, Playwright answers all preflights itself, and CORS is judged by nobody.
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Fetch.enable", { patterns: [{ urlPattern: `${APP_ORIGIN}/*` }] });
    devtools.on("Fetch.requestPaused", async ({ requestId, request }) => {
      const isScript = new URL(request.url).pathname === "/app.js";
      await devtools.send("Fetch.fulfillRequest", {
        requestId,
        responseCode: 200,
        responseHeaders: [{ name: "content-type", value: isScript ? "text/javascript" : "text/html" }],
        body: Buffer.from(isScript ? script : HTML).toString("base64"),
      });
    });
    return this.#open(APP_ORIGIN, page);
  }

  /** Closes all pages: an app whose token is refused tries again for ever, and its address is limited for that. */
  async closePages() {
    await Promise.all(this.#chromium.contexts().map((context) => context.close()));
    for (const close of this.#closing.splice(0)) close();
  }

  async close() {
    await this.closePages();
    await this.#chromium.close();
  }

  async #script(generation) {
    if (!this.#scripts.has(generation)) {
      const { outputFiles } = await build({
        entryPoints: [path.resolve(import.meta.dirname, "../pages/app.js")],
        bundle: true,
        write: false,
        format: "iife",
        target: "es2022",
        alias: { "oauth-client": GENERATIONS[generation] },
        // of the ways in which Automerge brings its WebAssembly, the one that is a script
        conditions: ["webpack"],
        logLevel: "error",
      });
      this.#scripts.set(generation, outputFiles[0].text);
    }
    return this.#scripts.get(generation);
  }

  /** A page of a profile of its own. */
  async #page() {
    const context = await this.#chromium.newContext();
    context.setDefaultTimeout(WAIT_MS);
    return context.newPage();
  }

  async #open(origin, page) {
    page ??= await this.#page();
    await page.goto(`${origin}/`);
    return new Page(page, origin);
  }
}

/** An app in a tab. */
export class Page {
  #page;
  /** What the browser has said on its console: CORS refusals stand there. */
  console = [];

  constructor(page, origin) {
    this.#page = page;
    this.origin = origin;
    page.on("console", (message) => this.console.push(message.text()));
  }

  /** Calls a function of `window.app`. */
  async run(name, ...args) {
    return this.#page.evaluate(([name, args]) => window.app[name](...args), [name, args]);
  }

  /**
   * Signs in at the PDS, with a loopback client id, or with the metadata document `name` on the host of the apps.
   * `redirectOrigin` is where the code should go if not to this page, which then takes it all the same.
   */
  async signIn(network, account, { name, redirectOrigin = this.origin } = {}) {
    const redirectUri = `${redirectOrigin}/`;
    const metadata = name ? await webMetadata(network, name, { redirectUri }) : loopbackMetadata(redirectUri);
    this.clientId = metadata.client_id;
    const settings = { pdsUrl: network.pdsUrl, plcUrl: network.plcUrl, metadata };
    await this.run("setUp", settings);
    // the DID and not the handle, which 0.3.10 does not resolve in .test
    const back = await consent(await this.run("authorizeUrl", account.did, SCOPE), account);
    // From there the PDS sends a browser to the redirect URI, with the same query.
    if (redirectOrigin !== this.origin) return this.run("callback", back.search.slice(1));
    await this.#page.goto(`${redirectUri}${back.search}`);
    await this.run("setUp", settings);
    return this.run("comeBack");
  }

  /** Whether the app still has its session with the PDS, and it works. */
  async isSignedIn() {
    return this.run("isSignedIn");
  }

  /** What an app sends to its owner's sync server. */
  async authenticate(server, fields) {
    const answer = await this.run("authenticate", `${server.url}/authenticate`, fields);
    if (answer.body.token) server.secrets.add("sync token", answer.body.token);
    return answer;
  }

  /** The request of such a call, as somebody sees it who reads along: the server has answered it once. */
  async overheard(server, fields) {
    return this.run("overheard", `${server.url}/authenticate`, fields);
  }

  /** Connects a Repo and waits until the server has greeted it. */
  async connect(url) {
    await this.run("connect", url);
    await this.isConnected(true);
  }

  /** Waits until the Repo is connected, or is not. */
  async isConnected(wanted, within = WAIT_MS) {
    const what = `a Repo in the browser that is ${wanted ? "" : "not "}connected`;
    await until(what, async () => (await this.run("isConnected")) === wanted, within);
  }

  /** Waits until the document here satisfies `condition`. */
  async sees(url, what, condition) {
    await until(what, async () => condition(await this.run("read", url)), WAIT_MS);
  }
}
