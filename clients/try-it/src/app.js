// Starts the two devices, gives both the same document, and says so when that cannot work.

import { initializeWasm } from "@automerge/automerge/slim";

import { newDocumentAddress, readAddress, rememberDocument, socketUrl } from "./address.js";
import { Device } from "./device.js";
import { Pane } from "./pane.js";

const PROBE_MS = 2_000;
const COPIED_MS = 2_000;
const NEW_ADDRESS = "Run “groundmist-sync dev” again (or “make dev”) and open the address that it prints.";

const MISSING =
  "The server does not have this document. Start with “New document” below, or wait until another device brings it.";

const byId = (id) => document.getElementById(id);

const problems = new Map();

/** Shows what is wrong with `subject`; an empty text says that it is well again. */
function showProblem(subject, text) {
  problems.set(subject, text);
  const all = [...problems.values()].filter(Boolean).join(" ");
  const box = byId("problem");
  // a screen reader announces each change, so nothing is written twice
  if (box.textContent !== all) box.textContent = all;
  box.hidden = all === "";
}

/** Whether the server refuses this token: a browser does not tell a page why its WebSocket was refused. */
async function isRefused(token) {
  try {
    const response = await fetch("/sync", { headers: { authorization: `Bearer ${token}` }, cache: "no-store" });
    return response.status === 401;
  } catch {
    // no answer at all: the server is away, which the panes show
    return false;
  }
}

/** While a device is on and not connected, looks now and then whether its token is the reason. */
function watchToken(devices, token) {
  setInterval(async () => {
    const waiting = devices.some((device) => device.isOn && !device.isConnected);
    if (!waiting) showProblem("token", "");
    else if (await isRefused(token)) showProblem("token", `The token in this page’s address is not valid, or no longer. ${NEW_ADDRESS}`);
  }, PROBE_MS);
}

function offerCopies() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = byId(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        announceCopy(button);
      } catch {
        // without permission the text is at least selected, ready for the keyboard
        getSelection().selectAllChildren(source);
      }
    });
  }
}

function announceCopy(button) {
  const say = (label, announcement) => {
    button.textContent = label;
    byId("copied").textContent = announcement;
  };
  say("Copied", "Copied");
  setTimeout(() => say("Copy", ""), COPIED_MS);
}

/** Shows the document of the address in all panes; without one, the first device creates it. */
function openDocument(devices, panes, token, documentUrl) {
  let url = documentUrl;
  if (!url) {
    // at once, even while the server is away: that is what local-first means
    const created = devices[0].repo.create({ text: "" });
    url = created.url;
    rememberDocument(token, url);
  }
  byId("document").textContent = url;
  return Promise.all(devices.map(async (device, i) => panes[i].open(await found(device, url))));
}

/** The document: what this device has of it, else what the server has once it is connected. */
async function found(device, documentUrl) {
  const own = device.repo.handles[documentUrl.replace("automerge:", "")];
  if (own) return own;
  await device.connected();
  try {
    return await device.repo.find(documentUrl);
  } catch (cause) {
    // another device may be about to bring it: the handle becomes ready when it does
    const handle = device.repo.handles[documentUrl.replace("automerge:", "")];
    if (!handle) throw cause;
    const timer = setTimeout(() => showProblem("document", MISSING), PROBE_MS);
    await handle.whenReady(["ready"]);
    clearTimeout(timer);
    showProblem("document", "");
    return handle;
  }
}

async function start() {
  window.addEventListener("hashchange", () => location.reload());
  offerCopies();
  const { token, documentUrl } = readAddress();
  if (!token) {
    showProblem("token", `This page’s address lacks the token. ${NEW_ADDRESS}`);
    return;
  }
  const url = socketUrl(token);
  byId("adapter").textContent = `new BrowserWebSocketClientAdapter("${url}")`;
  byId("new").href = newDocumentAddress(token);

  await initializeWasm(new URL("automerge.wasm", import.meta.url));
  const devices = [];
  const panes = ["Left device", "Right device"].map((title, i) => {
    const device = new Device(url);
    devices.push(device);
    return new Pane(device, { id: ["left", "right"][i], title, parent: byId("panes"), template: byId("pane") });
  });
  watchToken(devices, token);
  await openDocument(devices, panes, token, documentUrl);
}

start().catch((error) => {
  console.error(error);
  showProblem("page", `The page could not start: ${error.message}`);
});
