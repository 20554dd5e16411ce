// The process of the network: a PLC directory, a PDS with its accounts, and the host of the apps.
//
// Says in one line of JSON where everything is, and ends with its standard input, that is, with whoever started it.

import "./loopback.js";

import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";

import { PDS } from "@atproto/pds";

import { AppHost } from "./app-host.js";
import { PlcDirectory } from "./plc.js";

const { PDS_PORT, PLC_PORT, APP_HOST_PORT, ACCOUNTS } = process.env;
const PASSWORD = "correct-horse-battery";

const dataDir = mkdtempSync(path.join(tmpdir(), "groundmist-pds-"));
process.on("exit", () => rmSync(dataDir, { recursive: true, force: true }));
const blobs = path.join(dataDir, "blobs");
mkdirSync(path.join(blobs, "tmp"), { recursive: true });

const plcUrl = `http://localhost:${PLC_PORT}`;
const pdsUrl = `http://localhost:${PDS_PORT}`;
const rotationKey = randomBytes(32).toString("hex");

const plc = new PlcDirectory();
await plc.listen(Number(PLC_PORT));
const apps = new AppHost();
await apps.listen(Number(APP_HOST_PORT));
const pds = await PDS.fromEnv({
  // `devMode` and the lack of SSRF protection let it have an http issuer, and fetch http and loopback URLs; the host
  // name `localhost` makes `http://localhost:port` of its issuer, which clients take only with `allowHttp`.
  devMode: true,
  disableSsrfProtection: true,
  hostname: "localhost",
  port: Number(PDS_PORT),
  dataDirectory: dataDir,
  blobstoreDiskLocation: blobs,
  blobstoreDiskTmpLocation: path.join(blobs, "tmp"),
  didPlcUrl: plcUrl,
  plcRotationKeyK256PrivateKeyHex: rotationKey,
  jwtSecret: randomBytes(16).toString("hex"),
  dpopSecret: randomBytes(32).toString("hex"),
  adminPassword: randomBytes(16).toString("hex"),
  serviceHandleDomains: [".test"],
  inviteRequired: false,
  rateLimitsEnabled: false,
  crawlers: [],
});
await pds.start();

const accounts = {};
for (const name of ACCOUNTS.split(",")) {
  const handle = `${name}.test`;
  // example.com is not refused as an address of mail, though it is as the host of a client
  const { did } = await post("com.atproto.server.createAccount", { handle, email: `${name}@example.com`, password: PASSWORD });
  accounts[name] = { did, handle, password: PASSWORD };
}
console.log(JSON.stringify({ pdsUrl, plcUrl, appHostUrl: `http://127.0.0.1:${APP_HOST_PORT}`, dataDir, rotationKey, accounts }));

process.stdin.on("end", () => process.exit()).resume();
process.on("SIGTERM", () => process.exit());

async function post(method, body) {
  const response = await fetch(`${pdsUrl}/xrpc/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${method}: ${response.status} ${await response.text()}`);
  return response.json();
}
