// Keeps this process on loopback. Import it before anything that listens or fetches.
//
// The PDS says `app.listen(port)`, which means every interface of the machine, and has no setting for it. And an
// authorization server insists that a client_id is https with a domain name and no port: what is fetched from such an
// origin comes from loopback instead, as `FETCH_MAP` says ("https://app.example.dev=http://127.0.0.1:4001,...").

import net from "node:net";
import process from "node:process";

const HOST = "127.0.0.1";
const listen = net.Server.prototype.listen;
const fetchFromNetwork = globalThis.fetch;
const elsewhere = new Map((process.env.FETCH_MAP ?? "").split(",").filter(Boolean).map((pair) => pair.split("=")));

net.Server.prototype.listen = function listenOnLoopback(first, ...rest) {
  if (typeof first === "number" && typeof rest[0] !== "string") return listen.call(this, first, HOST, ...rest);
  if (first?.port !== undefined) return listen.call(this, { ...first, host: HOST }, ...rest);
  return listen.call(this, first, ...rest);
};

globalThis.fetch = function fetchFromLoopback(input, init) {
  const request = new Request(input, init);
  const { origin, pathname, search } = new URL(request.url);
  if (!elsewhere.has(origin)) return fetchFromNetwork(input, init);
  const { method, headers, redirect } = request;
  return fetchFromNetwork(new URL(pathname + search, elsewhere.get(origin)), { method, headers, redirect });
};
