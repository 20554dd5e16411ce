// What a person sees of one device: the text, the connection, and whether the text is on the server.

import { updateText } from "@automerge/automerge/slim";

import { moved } from "./caret.js";

const PATH = ["text"];

const STATE_TEXT = {
  connected: () => "Connected",
  connecting: () => "Connecting…",
  offline: (device) => (device.isOn ? "Offline: the server does not answer, trying again" : "Offline: switched off"),
};

export class Pane {
  #device;
  #handle;
  #composing = false;

  /** Puts the pane of `device` on the page. `id` names it for tests and labels. */
  constructor(device, { id, title, parent, template }) {
    this.#device = device;
    const part = template.content.cloneNode(true);
    const find = (selector, testId) => {
      const element = part.querySelector(selector);
      element.dataset.testid = `${testId}-${id}`;
      return element;
    };
    this.text = find("textarea", "text");
    this.toggle = find("button", "toggle");
    this.state = find(".state", "state");
    this.saved = find(".saved", "saved");
    const heading = part.querySelector("h2");
    heading.textContent = title;
    heading.id = `title-${id}`;
    this.text.setAttribute("aria-labelledby", heading.id);
    this.title = title;
    parent.append(part);

    device.addEventListener("change", () => this.#show());
    this.toggle.addEventListener("click", () => (device.isOn ? device.switchOff() : device.switchOn()));
    this.text.addEventListener("input", () => this.#typed());
    this.text.addEventListener("compositionstart", () => (this.#composing = true));
    this.text.addEventListener("compositionend", () => {
      this.#composing = false;
      this.#typed();
      this.#render([]);
    });
    this.toggle.disabled = false;
    this.#show();
  }

  /** Shows this document from now on. */
  open(handle) {
    this.#handle = handle;
    handle.on("change", ({ patches }) => this.#render(patches));
    handle.on("heads-changed", () => this.#show());
    handle.on("remote-heads", () => this.#show());
    this.text.disabled = false;
    this.text.placeholder = "Type here…";
    this.#render([]);
    this.#show();
  }

  #typed() {
    // half a composed character is nobody else's business
    if (this.#composing || !this.#handle) return;
    this.#handle.change((doc) => updateText(doc, PATH, this.text.value));
  }

  #render(patches) {
    const { text } = this.#handle.doc();
    if (this.#composing || this.text.value === text) return;
    const { selectionStart, selectionEnd, selectionDirection, scrollTop } = this.text;
    this.text.value = text;
    this.text.setSelectionRange(moved(selectionStart, patches, PATH), moved(selectionEnd, patches, PATH), selectionDirection);
    this.text.scrollTop = scrollTop;
  }

  #show() {
    const device = this.#device;
    setState(this.state, "state", device.state, STATE_TEXT[device.state](device));
    this.toggle.textContent = device.isOn ? "Take offline" : "Go online";
    this.toggle.setAttribute("aria-label", `${this.toggle.textContent}: ${this.title}`);
    if (!this.#handle) return;
    if (device.isSaved(this.#handle)) setState(this.saved, "saved", "yes", "Saved on the server");
    else if (device.isConnected) setState(this.saved, "saved", "saving", "Saving…");
    else setState(this.saved, "saved", "no", "Not saved (offline)");
  }
}

/** Changes a status line only when it says something new: screen readers announce each change. */
function setState(element, name, value, text) {
  if (element.dataset[name] === value && element.textContent === text) return;
  element.dataset[name] = value;
  element.textContent = text;
}
