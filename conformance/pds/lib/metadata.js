// What apps say of themselves. Source: atproto OAuth specification, "Client ID Metadata Document".

import { APP_ORIGIN } from "./network.js";

/** The scope that apps ask for today. */
export const SCOPE = "atproto transition:generic";

const COMMON = {
  client_name: "Reader",
  scope: SCOPE,
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  dpop_bound_access_tokens: true,
};

/** An app without a document, good for development: its id says all that is asked of it. */
export function loopbackMetadata(redirectUri) {
  return {
    ...COMMON,
    client_id: `http://localhost?${new URLSearchParams({ redirect_uri: redirectUri, scope: SCOPE })}`,
    redirect_uris: [redirectUri],
    application_type: "native",
    token_endpoint_auth_method: "none",
  };
}

/** An app on the web, whose document `name` is put on the host of the apps. */
export async function webMetadata(network, name, { redirectUri = `${APP_ORIGIN}/`, ...more } = {}) {
  const metadata = {
    ...COMMON,
    client_id: `${APP_ORIGIN}/${name}.json`,
    redirect_uris: [redirectUri],
    application_type: "web",
    token_endpoint_auth_method: "none",
    ...more,
  };
  await network.host(`${name}.json`, metadata);
  return metadata;
}
