import assert from "node:assert/strict";

import { proxyCases } from "../lib/cases.js";
import { Caddy, deployed } from "../lib/proxy.js";

proxyCases("caddy", Caddy, (declare) => {
  // Caddy has no end for a quiet socket unless it is told to
  declare("a quiet socket has no end in the settings", async () => {
    assert.doesNotMatch((await deployed("Caddyfile")).replaceAll(/#.*/g, ""), /timeout|deadline|keepalive/);
  });
});
