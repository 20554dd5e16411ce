// The page's address: the token and the document stand in the fragment, which no server and no log ever sees.

/** Token and document of this page's address; either may be missing. */
export function readAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  return { token: fragment.get("token"), documentUrl: fragment.get("doc") };
}

/** Puts the document into the address, so that a reload shows it again. */
export function rememberDocument(token, documentUrl) {
  history.replaceState(null, "", fragmentOf(token, documentUrl));
}

/** The address of this page with a new document. */
export const newDocumentAddress = (token) => fragmentOf(token);

/** Where an app with this token connects. */
export function socketUrl(token) {
  const url = new URL("/", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("token", token);
  return url.href;
}

function fragmentOf(token, documentUrl) {
  const fragment = new URLSearchParams({ token });
  // the colon of "automerge:" may stand as it is, which keeps the address readable
  return `#${fragment}${documentUrl ? `&doc=${documentUrl}` : ""}`;
}
