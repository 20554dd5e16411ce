// Resolves "vitest", which is not installed, to the few functions of it that the adapter tests use.

export async function resolve(specifier, context, next) {
  if (specifier === "vitest") return { url: new URL("./vitest.js", import.meta.url).href, shortCircuit: true };
  return next(specifier, context);
}
