// The code in docs/identity.md, as an app's developer copies it.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";

const PAGE = path.join(import.meta.dirname, "../../../docs/identity.md");
const BLOCK = /^```js\n\/\/ (\S+\.mjs)\n([\s\S]*?)^```$/gm;

/** The modules of the page, by the name in their first line, in a folder that is gone after `use`. */
export async function withDocumentedModules(use) {
  // within the package, where the page's imports are found
  const folder = await mkdtemp(path.join(import.meta.dirname, "../documented-"));
  try {
    const names = [];
    for (const [, name, code] of (await readFile(PAGE, "utf8")).matchAll(BLOCK)) {
      await writeFile(path.join(folder, name), code);
      names.push(name);
    }
    const modules = {};
    for (const name of names) modules[name] = await import(pathToFileURL(path.join(folder, name)));
    return await use(modules);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
