import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";

import { proxyCases } from "../lib/cases.js";
import { deployed, Nginx } from "../lib/proxy.js";
import { request } from "../lib/request.js";

const SOCKETS = path.join(import.meta.dirname, "../../../crates/server/src/sync/socket.rs");

proxyCases("nginx", Nginx, (declare) => {
  declare("a body that is longer than any that the server takes is refused", async ({ proxy }) => {
    const sent = (bytes) => request(proxy, "/authenticate", { method: "POST", body: "a".repeat(bytes) });
    assert.equal((await sent(16 << 10)).status, 400, "by the server");
    assert.equal((await sent(65 << 10)).status, 413, "by nginx");
  });

  // read, not waited for
  declare("a quiet socket is closed no sooner than after two pings of the server", async () => {
    const [, pingSeconds] = (await readFile(SOCKETS, "utf8")).match(/PING_EVERY: Duration = Duration::from_secs\((\d+)\)/);
    const [, timeoutSeconds] = (await deployed("nginx.conf")).match(/proxy_read_timeout (\d+)s;/);
    assert.ok(Number(timeoutSeconds) > 2 * Number(pingSeconds), `${timeoutSeconds} s, and a ping every ${pingSeconds} s`);
  });
});
