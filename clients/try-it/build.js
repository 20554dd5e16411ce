// Builds dist/: the few files that the server embeds and serves under /try/.

import { copyFile, mkdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";

import { build } from "esbuild";

const require = createRequire(import.meta.url);

await rm("dist", { recursive: true, force: true });
await mkdir("dist");
await build({
  entryPoints: ["src/app.js"],
  outfile: "dist/app.js",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "eof",
});
for (const name of ["index.html", "style.css", "icon.svg"]) await copyFile(`src/${name}`, `dist/${name}`);
// A file of its own, compiled while it streams; inlined it would be a third larger.
await copyFile(require.resolve("@automerge/automerge/automerge.wasm"), "dist/automerge.wasm");
