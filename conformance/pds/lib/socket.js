// A bare WebSocket: whether the server lets it in, and when it closes it.

import WebSocket from "ws";

import { until } from "../../lib/wait.js";

/** Sockets are closed this soon after what they stood on is gone. */
const REVOKED_MS_MAX = 1_000;

/** The HTTP status with which the server answers a WebSocket handshake at `url`; 101 lets it in. */
export async function statusOf(url) {
  const { status, socket } = await open(url);
  socket?.terminate();
  return status;
}

/** Opens a WebSocket, which must be let in. */
export async function opened(url) {
  const { status, socket } = await open(url);
  if (status !== 101) throw new Error(`the server answered the handshake with ${status}`);
  return socket;
}

/** Waits until the server has closed the socket. */
export async function closed(socket) {
  await until("the server closing the socket", () => socket.readyState === WebSocket.CLOSED, REVOKED_MS_MAX);
}

function open(url) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.on("error", reject);
    socket.on("open", () => resolve({ status: 101, socket }));
    socket.on("unexpected-response", (request, { statusCode }) => {
      request.destroy();
      resolve({ status: statusCode });
    });
  });
}
