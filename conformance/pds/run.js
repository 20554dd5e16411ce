// Starts the network, runs the cases of tests/ on it, and stops it: `npm test`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import process from "node:process";

import { Network } from "./lib/network.js";

const network = await Network.start();
try {
  const run = spawn(process.execPath, [path.join(import.meta.dirname, "../run.js"), "pds", ...process.argv.slice(2)], { stdio: "inherit" });
  [process.exitCode] = await once(run, "exit");
} finally {
  await network.stop();
}
