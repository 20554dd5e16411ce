// Runs the suites and holds their outcome against expected.toml: an unexpected failure fails the run,
// and so does an unexpected pass. Ends with the line "N passed, N failed".

import { access, constants, readdir, readFile } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import { run } from "node:test";

import { parse } from "smol-toml";

import { serverBinary } from "./lib/server.js";

const ROOT = import.meta.dirname;
// pds and proxies are run by a run.js of their own, which makes what they need; the others when nobody says which
const SUITES = { clients: "tests", browser: "browser", pds: "pds/tests", proxies: "proxies/tests" };
const ALONE = ["clients", "browser"];
const FILES_AT_ONCE = 2;
const FILE_MS_MAX = 170_000;

const wanted = process.argv.slice(2).filter((argument) => argument in SUITES);
/** Whatever else is said is how a file's name begins. */
const beginnings = process.argv.slice(2).filter((argument) => !(argument in SUITES));

try {
  await access(serverBinary(), constants.X_OK);
} catch (error) {
  console.error(`no server to test: ${error.message}`);
  process.exit(64);
}

const expected = await expectedFailures();
const cases = [];
for (const suite of wanted.length > 0 ? wanted : ALONE) {
  cases.push(...(await outcomes(await testFiles(SUITES[suite]))));
}
report(cases);

/** The entries of expected.toml, keyed as the cases are named. */
async function expectedFailures() {
  const { failure = [] } = parse(await readFile(path.join(ROOT, "expected.toml"), "utf8"));
  for (const entry of failure) {
    for (const key of ["case", "generation", "reason"]) {
      if (typeof entry[key] !== "string" || entry[key] === "") throw new Error(`expected.toml: an entry lacks "${key}"`);
    }
  }
  return new Map(failure.map((entry) => [`[${entry.generation}] ${entry.case}`, entry.reason]));
}

async function testFiles(folder) {
  const names = await readdir(path.join(ROOT, folder));
  const isWanted = (name) => beginnings.length === 0 || beginnings.some((beginning) => name.startsWith(beginning));
  return names.filter((name) => name.endsWith(".test.js") && isWanted(name)).sort().map((name) => path.join(ROOT, folder, name));
}

/** Runs the files; each case's name, whether it passed, its error and its time. */
async function outcomes(files) {
  const cases = [];
  const events = run({ files, concurrency: FILES_AT_ONCE, timeout: FILE_MS_MAX, forceExit: true });
  // Retry timers of the stock adapters outlive their Repos, so every file's process is ended when its cases are.
  for await (const { type, data } of events) {
    if (type === "test:stderr") process.stderr.write(data.message);
    if (type !== "test:pass" && type !== "test:fail") continue;
    const { name, details, skip, todo } = data;
    const isCase = name.startsWith("[");
    // A suite fails because of its cases; a file that fails by itself (a crash, a failed hook) is news.
    const failedAlone = type === "test:fail" && !isCase && details.error?.failureType !== "subtestsFailed";
    if (!isCase && !failedAlone) continue;
    const passed = type === "test:pass" && !skip && !todo;
    cases.push({ name: isCase ? name : path.relative(ROOT, name), passed, error: details.error, ms: Math.round(details.duration_ms) });
    process.stdout.write(passed ? "." : "F");
  }
  process.stdout.write("\n");
  return cases;
}

/** Prints what is unexpected, then the counts; sets the exit status. */
function report(cases) {
  let failed = 0;
  let expectedly = 0;
  for (const { name, passed, error, ms } of cases) {
    const reason = expected.get(name);
    if (passed && reason === undefined) continue;
    if (!passed && reason !== undefined) {
      expectedly++;
      continue;
    }
    failed++;
    if (passed) console.log(`\nunexpected pass: ${name}\n  remove it from expected.toml, which says: ${reason}`);
    else console.log(`\nfailed: ${name} (${ms} ms)\n${indented(error)}`);
  }
  if (process.env.CONFORMANCE_TIMES) {
    for (const { name, ms } of [...cases].sort((a, b) => b.ms - a.ms).slice(0, 15)) console.log(`${String(ms).padStart(7)} ms  ${name}`);
  }
  if (expectedly > 0) console.log(`${expectedly} failed as expected.toml says; they count as passed`);
  console.log(`${cases.length - failed} passed, ${failed} failed`);
  if (failed > 0 || cases.length === 0) process.exitCode = 1;
}

function indented(error) {
  const cause = error?.cause ?? error;
  const text = cause?.stack ?? cause?.message ?? String(cause);
  return text.split("\n").slice(0, 12).map((line) => `    ${line}`).join("\n");
}
