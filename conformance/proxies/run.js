// Makes a certificate that Node trusts, and runs the cases of tests/ with it: `npm run test:proxies`.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";

import { certificateIn } from "./lib/proxy.js";

const folder = await mkdtemp(path.join(tmpdir(), "groundmist-sync-certificate-"));
try {
  const { certificate, key } = certificateIn(folder);
  const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext";
  execFileSync("openssl", [...request.split(" "), "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const run = spawn(process.execPath, [path.join(import.meta.dirname, "../run.js"), "proxies", ...process.argv.slice(2)], {
    stdio: "inherit",
    // Node reads the first when it starts, and trusts what it has read: no client here skips the check
    env: { ...process.env, NODE_EXTRA_CA_CERTS: certificate, GROUNDMIST_TEST_CERTIFICATE: folder },
  });
  [process.exitCode] = await once(run, "exit");
} finally {
  await rm(folder, { recursive: true, force: true });
}
