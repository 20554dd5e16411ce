// Requests as a client of the proxy makes them, from an address of its choice.

import { once } from "node:events";
import http from "node:http";
import https from "node:https";

import WebSocket from "ws";

/** A request over TLS, on a connection of its own: its status, headers and body. `from` is an address of loopback. */
export async function request(proxy, path, { method = "GET", headers = {}, body, from } = {}) {
  const options = { host: "localhost", family: 4, port: proxy.port, path, method, headers, localAddress: from, agent: false };
  return answerTo(https.request(options), body);
}

/** The same without TLS. */
export async function plainRequest(proxy, path) {
  return answerTo(http.request({ host: "127.0.0.1", port: proxy.httpPort, path, headers: { Host: "localhost" }, agent: false }));
}

async function answerTo(asked, body) {
  asked.end(body);
  const [response] = await once(asked, "response");
  response.setEncoding("utf8");
  let text = "";
  for await (const piece of response) text += piece;
  return { status: response.statusCode, headers: response.headers, body: text };
}

/** Opens a WebSocket at `path`: the status of the answer, and the socket if that is 101. */
export async function webSocket(proxy, path, { protocols = [], headers = {}, from } = {}) {
  const socket = new WebSocket(`wss://localhost:${proxy.port}${path}`, protocols, { headers, localAddress: from, family: 4 });
  return new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("open", () => resolve({ status: 101, socket }));
    socket.on("unexpected-response", (asked, { statusCode }) => {
      asked.destroy();
      resolve({ status: statusCode });
    });
  });
}
