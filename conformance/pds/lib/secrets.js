// What must stand nowhere but where it is used: collected as the cases meet it, and looked for at the end.

/** Long enough not to be met by chance, short enough that a text cut in half is found. */
const PIECE_CHARS = 24;

export class Secrets {
  #known = new Map();

  /** Remembers a secret by its name. */
  add(name, secret) {
    this.#known.set(secret, name);
    return secret;
  }

  get size() {
    return this.#known.size;
  }

  /** The names of those of which a piece stands in `text`; `?token=` counts as one. */
  foundIn(text) {
    const found = new Set();
    for (const marker of ["?token=", "?ticket=", "DPoP ey", "Bearer ey"]) if (text.includes(marker)) found.add(marker);
    for (const [secret, name] of this.#known) if (pieces(secret).some((piece) => text.includes(piece))) found.add(name);
    return [...found];
  }
}

// Of a token its signature, which is its own: others have the same header, and the same claims in part.
function pieces(secret) {
  const last = secret.split(".").at(-1);
  return [last.slice(0, PIECE_CHARS), last.slice(-PIECE_CHARS)];
}
