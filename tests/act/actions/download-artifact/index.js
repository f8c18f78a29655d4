const path = require("node:path");
const modules = process.env.TEST_NODE_MODULES;
const input = (name) => process.env[`INPUT_${name.toUpperCase()}`] ?? "";

(async () => {
  const artifact = await import(`${modules}/@actions/artifact/lib/artifact.js`);
  const { DefaultArtifactClient: Client } = artifact.default;
  const client = new Client();
  const into = path.resolve(process.env.GITHUB_WORKSPACE, input("path"));
  if (input("name")) {
    const { artifact: found } = await client.getArtifact(input("name"));
    await client.downloadArtifact(found.id, { path: into });
    return;
  }
  const wanted = new RegExp(`^${input("pattern").split("*").join(".*")}$`);
  const { artifacts } = await client.listArtifacts({ latest: true });
  for (const each of artifacts.filter((one) => wanted.test(one.name))) {
    const folder = input("merge-multiple") === "true" ? into : path.join(into, each.name);
    await client.downloadArtifact(each.id, { path: folder });
    console.log(`downloaded ${each.name}`);
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
