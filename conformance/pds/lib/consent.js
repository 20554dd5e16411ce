// The owner at the PDS's authorization page: signs in and agrees, through the JSON API that the page itself uses.
//
// The API wants what a browser would send: `Sec-Fetch-*`, the page as `Origin` and `Referer`, the cookies of the
// device, and the CSRF cookie once more as a header. `fetch` does not let anybody set `Sec-Fetch-*`, hence node:http.

import http from "node:http";

const API = "/@atproto/oauth-provider/~api/";

/** Agrees to what `authorizeUrl` asks for; where the browser is then sent to, with `iss`, `state` and `code`. */
export async function consent(authorizeUrl, account) {
  const page = new Page(authorizeUrl);
  await page.open();
  const { ephemeralToken, account: signedIn } = await page.call("sign-in", {
    username: account.did,
    password: account.password,
    locale: "en",
    remember: true,
  });
  page.bearer = ephemeralToken;
  const { url } = await page.call("consent", { did: signedIn.did ?? signedIn.sub });
  return new URL(url);
}

class Page {
  #cookies = new Map();

  constructor(url) {
    this.url = new URL(url);
  }

  async open() {
    const { status, body } = await this.#request("GET", this.url, {
      accept: "text/html",
      "sec-fetch-mode": "navigate",
      "sec-fetch-dest": "document",
      "sec-fetch-site": "cross-site",
    });
    if (status !== 200) throw new Error(`the authorization page: ${status} ${body.slice(0, 300)}`);
  }

  async call(name, input) {
    const headers = {
      accept: "application/json",
      "content-type": "application/json",
      origin: this.url.origin,
      referer: this.url.href,
      "sec-fetch-mode": "same-origin",
      "sec-fetch-dest": "empty",
      "sec-fetch-site": "same-origin",
      "x-csrf-token": this.#cookies.get("csrf-token") ?? "",
    };
    if (this.bearer) headers.authorization = `Bearer ${this.bearer}`;
    const { status, body } = await this.#request("POST", new URL(API + name, this.url), headers, JSON.stringify(input));
    if (status !== 200) throw new Error(`${name} at the PDS: ${status} ${body.slice(0, 300)}`);
    return JSON.parse(body);
  }

  #request(method, url, headers, body) {
    const cookie = [...this.#cookies].map((pair) => pair.join("=")).join("; ");
    return new Promise((resolve, reject) => {
      const request = http.request(url, { method, headers: { ...headers, cookie, "user-agent": "conformance" } }, async (response) => {
        for (const line of response.headers["set-cookie"] ?? []) {
          const [, name, value] = /^([^=]*)=([^;]*)/.exec(line);
          this.#cookies.set(name, value);
        }
        let text = "";
        for await (const chunk of response) text += chunk;
        resolve({ status: response.statusCode, body: text });
      });
      request.on("error", reject).end(body);
    });
  }
}
