// A stock app in a browser, without a face: what it can do hangs on `window.app`, for the cases to call.
//
// "oauth-client" is one of the two generations of @atproto/oauth-client-browser: see lib/browser.js.

import { BrowserOAuthClient } from "oauth-client";

import { automergeRepo, BrowserWebSocketClientAdapter } from "../../clients/v2.5.6/index.js";

const RETRY_MS = 1_000;

let client, session, repo, adapter;
const handles = new Map();
const notebook = {};

window.app = {
  /** Makes the OAuth client; the page has to do it again after each navigation. */
  setUp({ pdsUrl, plcUrl, metadata }) {
    client = new BrowserOAuthClient({
      clientMetadata: metadata,
      handleResolver: pdsUrl,
      plcDirectoryUrl: plcUrl,
      allowHttp: true,
      responseMode: "query",
    });
  },

  /** Where the user has to agree. */
  async authorizeUrl(did, scope) {
    return String(await client.authorize(did, { scope }));
  },

  /** Takes the code out of the page's address, as an app does when it is loaded; whose session it is. */
  async comeBack() {
    ({ session } = await client.init());
    return session.did;
  },

  /** Takes the code that belongs to a page of another origin. */
  async callback(query) {
    ({ session } = await client.callback(new URLSearchParams(query)));
    return session.did;
  },

  /** Whether the session with the PDS still works. */
  async isSignedIn() {
    const response = await session.fetchHandler("/xrpc/com.atproto.server.getSession");
    return response.ok && (await response.json()).did === session.did;
  },

  async authenticate(url, fields) {
    const response = await session.fetchHandler(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
    return { status: response.status, body: await response.json() };
  },

  /** The last request that the library makes of such a call, as somebody would see it who reads along. */
  async overheard(url, fields) {
    const send = window.fetch;
    let seen;
    window.fetch = (input, init) => {
      const request = new Request(input, init);
      if (request.url === url) seen = { method: "POST", headers: Object.fromEntries(request.headers), body: JSON.stringify(fields) };
      return send(input, init);
    };
    try {
      await this.authenticate(url, fields);
    } finally {
      window.fetch = send;
    }
    return seen;
  },

  /** A request without the library, as a page of anybody can make one. */
  async bareFetch(url, init) {
    try {
      const response = await fetch(url, init);
      return { status: response.status, text: await response.text() };
    } catch (error) {
      return { blocked: String(error) };
    }
  },

  /** A Repo that syncs through this address. */
  connect(url) {
    adapter = new BrowserWebSocketClientAdapter(url, RETRY_MS);
    repo = new automergeRepo.Repo({ network: [adapter] });
  },

  isConnected: () => repo.peers.length > 0,

  create(content) {
    const handle = repo.create(content);
    handles.set(handle.url, handle);
    return handle.url;
  },

  async read(url) {
    if (!handles.has(url)) handles.set(url, await repo.find(url));
    return handles.get(url).doc();
  },

  /** An account document of an app that has not heard of any server yet. */
  startNotebook(madeOn) {
    repo = new automergeRepo.Repo({ network: [] });
    const handle = repo.create({ madeOn });
    handles.set(handle.url, handle);
    return (notebook.account = handle.url);
  },

  /**
   * What grjte/groundmist-notebook does when it has signed in: it looks at no status, takes `rootDocUrl` as its account
   * if it is another one, and connects with `token`, whatever that is. Its account after that.
   */
  async connectNotebook(url, lexiconAuthorityDomain) {
    const response = await session.fetchHandler(`${url}/authenticate`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ lexiconAuthorityDomain, rootDocUrl: notebook.account }),
    });
    const data = await response.json();
    if (data.rootDocUrl !== notebook.account) notebook.account = data.rootDocUrl;
    notebook.token = data.token;
    adapter?.disconnect();
    adapter = new BrowserWebSocketClientAdapter(`${url.replace("http", "ws")}?token=${data.token}`, RETRY_MS);
    repo.networkSubsystem.addNetworkAdapter(adapter);
    return notebook.account;
  },

  notebookToken: () => notebook.token,

  change: (url, key, value) => handles.get(url).change((doc) => (doc[key] = value)),
};
