// The project's lexicons, as any app would load them, and what they say about a call.

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

import { Lexicons } from "@atproto/lexicon";

const ROOT = path.resolve(import.meta.dirname, "../../../lexicons");

/** Errors of any XRPC method, which no lexicon lists. Source: atproto XRPC specification, "Error responses". */
const COMMON_ERRORS = new Set(["InvalidRequest", "MethodNotImplemented", "RateLimitExceeded"]);

/** The lexicon documents by their id. */
export const documents = new Map(
  readdirSync(ROOT, { recursive: true })
    .filter((name) => name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(path.join(ROOT, name), "utf8")))
    .map((document) => [document.id, document]),
);

/** The lexicons, each of which has been found valid. */
export const lexicons = new Lexicons(documents.values());

/** What makes this answer none of this method's; undefined if it is one. */
export function faultOf(nsid, status, body) {
  try {
    if (status === 200) lexicons.assertValidXrpcOutput(nsid, body);
    else assertDeclared(nsid, body);
    return undefined;
  } catch (error) {
    return `${nsid} answered ${status} ${JSON.stringify(body)}: ${error.message}`;
  }
}

function assertDeclared(nsid, { error, message, ...rest }) {
  const declared = documents.get(nsid).defs.main.errors ?? [];
  if (!COMMON_ERRORS.has(error) && !declared.some(({ name }) => name === error)) throw new Error(`undeclared error ${error}`);
  if (typeof message !== "string" || message === "") throw new Error("an error without a message");
  if (Object.keys(rest).length > 0) throw new Error("an error has an error and a message, nothing else");
}
