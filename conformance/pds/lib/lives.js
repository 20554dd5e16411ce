// What all apps at POST /authenticate live through, in Node and in browsers: refused, approved, connected, revoked.

import assert from "node:assert/strict";

/** The group of the apps of these cases. */
export const GROUP = "xyz.groundmist.library";

/** A refusal that an app can show and that costs it nothing: its session with the PDS stays. */
export async function refused(app, { status, body }, error, rest = {}) {
  const { message, rootDocUrl, ...fields } = body;
  assert.deepEqual({ status, ...fields }, { status: 403, error, ...rest });
  assert.match(message, /\w/);
  assert.equal(rootDocUrl, null, "nothing was sent, so nothing is given back");
  assert.ok(await app.isSignedIn(), "the session with the PDS survives");
}

/** What is refused for want of the owner's approval. */
export const unapproved = (app, answer, pairing) => refused(app, answer, "approval_required", { approveUrl: null, pairing });

/** A token and the root document. */
export function allowed({ status, body }, rootDocUrl = null) {
  const { token, ...rest } = body;
  assert.deepEqual({ status, ...rest }, { status: 200, result: "OK", rootDocUrl });
  assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/);
  return token;
}

/**
 * From the first refusal to the owner's approval: the request that the owner saw, the device's id, and a token.
 * `app` is a NodeApp or a Page.
 */
export async function approved(server, app, { fields = { lexiconAuthorityDomain: GROUP }, options = [] } = {}) {
  await server.openPairing();
  await unapproved(app, await app.authenticate(server, fields), "waiting");
  const request = await server.onePending();
  const device = await server.approveOne(...options);
  return { request, device, token: allowed(await app.authenticate(server, fields)) };
}

/** Of a revoked device, whatever it is called then: no token, and the session with the PDS stays. */
export async function revoked(app, answer) {
  assert.equal(answer.status, 403);
  assert.ok(["device_revoked", "approval_required"].includes(answer.body.error), answer.body.error);
  assert.equal(answer.body.token, undefined);
  assert.ok(await app.isSignedIn(), "the session with the PDS survives");
}
