const path = require("node:path");
const fs = require("node:fs");
const modules = process.env.TEST_NODE_MODULES;
const input = (name) => process.env[`INPUT_${name.toUpperCase()}`] ?? "";

(async () => {
  const glob = await import(`${modules}/@actions/glob/lib/glob.js`);
  const artifact = await import(`${modules}/@actions/artifact/lib/artifact.js`);
  const { create } = glob.default;
  const globber = await create(input("path"), { excludeHiddenFiles: true });
  const files = (await globber.glob()).filter((file) => fs.statSync(file).isFile());
  if (files.length === 0) {
    console.log("no files found");
    process.exit(input("if-no-files-found") === "error" ? 1 : 0);
  }
  // As the real action: below the least common ancestor of the patterns.
  const roots = globber.getSearchPaths().map((root) => root.split(path.sep));
  const shared = roots[0].filter((part, i) => roots.every((root) => root.slice(0, i + 1).join() === roots[0].slice(0, i + 1).join()));
  let root = shared.join(path.sep) || path.sep;
  if (fs.statSync(root).isFile()) root = path.dirname(root);
  const { DefaultArtifactClient: Client } = artifact.default;
  const done = await new Client().uploadArtifact(input("name"), files, root);
  console.log(`uploaded ${files.length} files, ${done.size} bytes`);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
