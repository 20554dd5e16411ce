// The try-it page in a real browser, served by the server itself.

import assert from "node:assert/strict";
import { access, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { chromium } from "playwright-core";

import { Server } from "../lib/server.js";
import { until } from "../lib/wait.js";

const CHROMIUM = "/usr/bin/chromium";
const CASE_MS_MAX = 45_000;
const WAIT_MS = 15_000;
const RESULTS = path.resolve(import.meta.dirname, "../results");

/** The page of a fresh server in a fresh browser profile, and everything that must not happen on it. */
class Visit {
  consoleErrors = [];
  foreignRequests = [];

  static async begin(options = {}) {
    await access(CHROMIUM).catch(() => {
      throw new Error(`${CHROMIUM} is missing: "make test" installs it, or run "apt-get install chromium"`);
    });
    const visit = new Visit();
    visit.server = await Server.start();
    visit.profile = await mkdtemp(path.join(tmpdir(), "groundmist-browser-"));
    visit.context = await chromium.launchPersistentContext(visit.profile, {
      executablePath: CHROMIUM,
      headless: true,
      args: [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
      ],
      ...options,
    });
    visit.context.setDefaultTimeout(WAIT_MS);
    visit.page = await visit.context.newPage();
    visit.#watch();
    return visit;
  }

  #watch() {
    this.page.on("console", (message) => message.type() === "error" && this.consoleErrors.push(message.text()));
    this.page.on("pageerror", (error) => this.consoleErrors.push(String(error)));
    const home = new URL(this.server.tryUrl).host;
    const look = (url) => new URL(url).host !== home && this.foreignRequests.push(url);
    this.page.on("request", (request) => look(request.url()));
    this.page.on("websocket", (socket) => look(socket.url()));
  }

  part = (id) => this.page.getByTestId(id);

  /** Waits until the element's data attribute has this value. */
  async shows(id, attribute, value) {
    await this.page.locator(`[data-testid="${id}"][data-${attribute}="${value}"]`).waitFor();
  }

  /** Waits until both panes are connected and saved. */
  async settled() {
    for (const side of ["left", "right"]) {
      await this.shows(`state-${side}`, "state", "connected");
      await this.shows(`saved-${side}`, "saved", "yes");
    }
  }

  /** Waits until the pane's text satisfies `condition`, a function or the text itself, and returns it. */
  async text(side, condition) {
    const holds = typeof condition === "function" ? condition : (text) => text === condition;
    let text;
    // read from here: the page's policy forbids the evaluation of strings, as it should
    const look = async () => holds((text = await this.part(`text-${side}`).inputValue()));
    await until(`${side} text`, look, WAIT_MS).catch((cause) => {
      throw new Error(`the ${side} text stayed ${JSON.stringify(text)}, wanted ${condition}`, { cause });
    });
    return text;
  }

  async picture(name) {
    await mkdir(RESULTS, { recursive: true });
    await this.page.screenshot({ path: path.join(RESULTS, `${name}.png`), fullPage: true });
  }

  async end() {
    await this.context?.close();
    await this.server?.dispose();
    if (this.profile) await rm(this.profile, { recursive: true, force: true });
  }
}

function browserCase(name, body, options) {
  test(`[browser] ${name}`, { timeout: CASE_MS_MAX }, async () => {
    const visit = await Visit.begin(options);
    try {
      await body(visit);
      assert.deepEqual(visit.foreignRequests, [], "requests to other hosts");
    } finally {
      await visit.end();
    }
  });
}

browserCase("typing in one pane shows in the other, saved on the server, and outlives a reload", async (visit) => {
  const { page, server } = visit;
  const response = await page.goto(server.tryUrl);
  const policy = response.headers()["content-security-policy"] ?? "";
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe-inline|'unsafe-eval'/);
  await visit.settled();

  await visit.part("text-left").pressSequentially("Good morning");
  await visit.text("right", "Good morning");
  await visit.settled();
  await visit.part("text-right").press("End");
  await visit.part("text-right").pressSequentially(", server!");
  await visit.text("left", "Good morning, server!");
  await visit.settled();

  assert.equal(await visit.part("adapter").textContent(), `new BrowserWebSocketClientAdapter("${server.url}")`);
  assert.match(await visit.part("document").textContent(), /^automerge:\w+$/);
  await page.reload();
  await visit.text("left", "Good morning, server!");
  await visit.text("right", "Good morning, server!");
  await visit.settled();

  await visit.part("new-document").click();
  await visit.text("left", "");
  await visit.settled();
  assert.deepEqual(visit.consoleErrors, []);
});

browserCase("offline edits of both devices merge when they are back, and the caret stays where it was", async (visit) => {
  const { page, server } = visit;
  await page.goto(server.tryUrl);
  await visit.settled();
  await visit.part("text-left").fill("middle");
  await visit.text("right", "middle");
  await visit.settled();

  for (const side of ["left", "right"]) {
    await visit.part(`toggle-${side}`).click();
    await visit.shows(`state-${side}`, "state", "offline");
  }
  await visit.part("text-left").press("Control+Home");
  await visit.part("text-left").pressSequentially("left ");
  await visit.part("text-right").press("Control+End");
  await visit.part("text-right").pressSequentially(" right");
  await visit.shows("saved-left", "saved", "no");
  await visit.shows("saved-right", "saved", "no");
  assert.equal(await visit.part("text-left").inputValue(), "left middle");
  assert.equal(await visit.part("text-right").inputValue(), "middle right");

  for (const side of ["left", "right"]) await visit.part(`toggle-${side}`).click();
  await visit.text("left", "left middle right");
  await visit.text("right", "left middle right");
  await visit.settled();

  // The right caret stands at the end; what the left inserts before it pushes it along.
  await visit.part("text-right").press("Control+End");
  await visit.part("text-left").press("Control+Home");
  await visit.part("text-left").pressSequentially("so: ");
  await visit.text("right", "so: left middle right");
  assert.equal(await visit.part("text-right").evaluate((area) => area.selectionStart), "so: left middle right".length);
  assert.deepEqual(visit.consoleErrors, []);
});

browserCase("concurrent typing in both panes loses no character", async (visit) => {
  await visit.page.goto(visit.server.tryUrl);
  await visit.settled();
  // Both textareas are edited in one turn, many times, as two people do who type at once.
  await visit.page.evaluate(async () => {
    const areas = ["text-left", "text-right"].map((id) => document.querySelector(`[data-testid="${id}"]`));
    for (let i = 0; i < 40; i++) {
      areas.forEach((area, side) => {
        area.setRangeText("ab"[side], side === 0 ? 0 : area.value.length, side === 0 ? 0 : area.value.length, "end");
        area.dispatchEvent(new InputEvent("input"));
      });
      await new Promise(requestAnimationFrame);
    }
  });
  const all = (text) => text.length === 80 && [...text].filter((letter) => letter === "a").length === 40;
  const left = await visit.text("left", all);
  assert.equal(await visit.text("right", all), left);
  await visit.settled();
  assert.deepEqual(visit.consoleErrors, []);
});

browserCase("a killed server shows as offline; it comes back, and so does everything typed meanwhile", async (visit) => {
  const { page, server } = visit;
  await page.goto(server.tryUrl);
  await visit.settled();
  await visit.part("text-left").fill("before");
  await visit.text("right", "before");
  await visit.settled();

  await server.stop("SIGKILL");
  for (const side of ["left", "right"]) await visit.shows(`state-${side}`, "state", "offline");
  await visit.part("text-left").press("Control+End");
  await visit.part("text-left").pressSequentially(" and meanwhile");
  await visit.shows("saved-left", "saved", "no");
  await server.startAgain();
  await visit.settled();
  await visit.text("right", "before and meanwhile");
  await page.reload();
  await visit.text("right", "before and meanwhile");
  // Failed connections are the browser's own words; the page itself must not add errors.
  assert.deepEqual(visit.consoleErrors.filter((text) => !/ERR_CONNECTION|WebSocket connection to/.test(text)), []);
});

browserCase("a token that is not valid is named, with the way to a new one", async (visit) => {
  const { page, server } = visit;
  await page.goto(`${server.tryUrl.split("#")[0]}#token=expired`);
  const problem = visit.part("problem");
  await problem.waitFor();
  assert.match(await problem.textContent(), /not valid.*groundmist-sync dev/);
  await page.goto("about:blank");
  await page.goto(server.tryUrl.split("#")[0]);
  await problem.waitFor();
  assert.match(await problem.textContent(), /lacks the token.*groundmist-sync dev/);
});

const SCREENS = [
  ["desktop-light", { colorScheme: "light", viewport: { width: 1100, height: 760 } }],
  ["desktop-dark", { colorScheme: "dark", viewport: { width: 1100, height: 760 } }],
  ["phone-light", { colorScheme: "light", viewport: { width: 375, height: 812 } }],
  ["phone-dark", { colorScheme: "dark", viewport: { width: 375, height: 812 } }],
];

browserCase("the page fits its screen, wide and narrow, light and dark", async (visit) => {
  const { page, server } = visit;
  for (const [name, { colorScheme, viewport }] of SCREENS) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    if (name === SCREENS[0][0]) {
      await page.goto(server.tryUrl);
      await visit.settled();
      await visit.part("text-left").fill("Shopping\n- bread\n- oranges");
      await visit.text("right", (text) => text.endsWith("oranges"));
      await visit.settled();
    }
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(overflow, 0, `${name}: the page is wider than its screen`);
    await visit.picture(name);
  }
  await visit.part("toggle-right").click();
  await visit.shows("state-right", "state", "offline");
  await visit.part("text-right").press("Control+End");
  await visit.part("text-right").pressSequentially("\n- tea");
  await visit.shows("saved-right", "saved", "no");
  await visit.picture("phone-dark-offline");
});
