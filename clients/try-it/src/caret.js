// Where a caret belongs after somebody else has edited the text around it.

/** The position `at`, in UTF-16 units, after `patches` have been applied to the text at `path`. */
export function moved(at, patches, path) {
  let position = at;
  for (const { action, path: where, value, length = 1 } of patches) {
    const index = where.at(-1);
    const inText = where.length === path.length + 1 && path.every((part, i) => where[i] === part);
    if (!inText) continue;
    // text that somebody inserts exactly at the caret goes behind it
    if (action === "splice" && index < position) {
      position += value.length;
    } else if (action === "del" && index < position) {
      position -= Math.min(length, position - index);
    }
  }
  return position;
}
