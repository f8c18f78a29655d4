// Look at a catalogue in Chromium; print what was seen as JSON, for tests/functional/test_catalogue.py.
// Usage: node catalogue.mjs NODE_MODULES CHROMIUM URL FILE_URL IMAGE
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [modules, executablePath, url, fileUrl, image] = process.argv.slice(2);
const { chromium } = await import(pathToFileURL(`${modules}/playwright-core/index.mjs`));
const axe = await readFile(`${modules}/axe-core/axe.min.js`, "utf8");
// A container has no user namespaces to make Chromium's own sandbox of.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"], timeout: 300_000 });
const pages = { list: "index.html", image: `catalogue/${image}.html` };
const seen = { messages: [], requests: [], wide: [], axe: [] };

const open = async (address, options = {}) => {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(300_000);
  const page = await context.newPage();
  page.on("console", (message) => seen.messages.push(`${address}: ${message.text()}`));
  page.on("pageerror", (error) => seen.messages.push(`${address}: ${error.message}`));
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.goto(address);
  return page;
};

for (const name of Object.values(pages)) {
  const page = await open(`${url}/${name}`);
  for (const width of [320, 375, 640, 768, 1023, 1024, 1440, 1920]) {
    await page.setViewportSize({ width, height: 900 });
    const content = await page.evaluate(() => document.documentElement.scrollWidth);
    if (content > width) seen.wide.push(`${name} is ${content} px wide at ${width}`);
  }
  await page.context().close();
  for (const [width, colorScheme] of [[320, "light"], [320, "dark"], [1440, "light"], [1440, "dark"]]) {
    const looked = await open(`${url}/${name}`, { viewport: { width, height: 900 }, colorScheme });
    // What lies outside the window is not laid out, and axe takes the colours of what is beside it.
    await looked.evaluate(() => {
      for (const item of document.querySelectorAll(".item")) item.style.contentVisibility = "visible";
    });
    await looked.evaluate(axe);
    const { violations } = await looked.evaluate(() => axe.run());
    for (const { id, nodes } of violations) {
      seen.axe.push(`${name} at ${width} ${colorScheme}: ${id}: ${nodes[0].html.slice(0, 200)}`);
    }
    await looked.context().close();
  }
}

const list = await open(`${url}/${pages.list}`, { permissions: ["clipboard-read", "clipboard-write"] });
const names = () => list.evaluate(() =>
  [...document.querySelectorAll(".item:not([hidden]) h3")].map((each) => each.textContent));
const count = () => list.textContent("#count");
// A button writes the clipboard after it was pressed: on a busy machine, some time after.
const copied = async (button) => {
  await list.evaluate(() => navigator.clipboard.writeText("nothing"));
  await list.click(button);
  const shown = await list.waitForFunction(async () => {
    const text = await navigator.clipboard.readText();
    return text !== "nothing" && text;
  });
  return shown.jsonValue();
};
seen.all = await names();
await list.keyboard.press("/");
await list.keyboard.type("Trixie postgres");
seen.searched = { names: await names(), count: await count(), focused: await list.evaluate(() => document.activeElement.id) };
await list.fill("#q", "");
await list.selectOption("#s", "withdrawn");
seen.withdrawn = { names: await names(), reason: await list.textContent(".item:not([hidden]) .why") };
await list.selectOption("#s", "outdated");
seen.outdated = await names();
await list.selectOption("#s", "");
await list.selectOption("#a", "aarch64");
await list.selectOption("#d", "debian12");
seen.filtered = await names();
await list.reload();
seen.kept = await names();
await list.fill("#q", "no such image");
seen.nothing = await list.isVisible("#none");
await list.goto(`${url}/${pages.list}`);
await list.selectOption("#o", "size");
seen.sizes = await list.evaluate(() =>
  [...document.querySelectorAll(".item .button")].slice(0, 5).map((each) => each.firstChild.data));
seen.copied = await copied(".use button >> nth=0");
await list.selectOption("#o", "");
await list.click(`.item h3 a >> text="${image}"`);
await list.waitForURL(`**/${pages.image}`);
seen.followed = await list.textContent("h1");
await list.click("details.list summary");
await list.fill("input[id^=filter]", "openssl");
seen.packages = await list.evaluate(() => [...document.querySelectorAll(".listed li")].map((each) => each.textContent));
seen.checksum = await copied("[data-copy^=sum]");

const plain = await open(`${url}/${pages.list}`, { javaScriptEnabled: false });
seen.plain = { items: await plain.locator(".item").count(), tools: await plain.isVisible(".tools") };
await plain.goto(`${url}/${pages.image}`);
await plain.click("details.list summary");
await plain.click("text=Show what the spec says");
seen.plain.spec = await plain.frameLocator("iframe[title^=Spec]").locator("body").textContent();
seen.plain.packages = await plain.frameLocator("iframe[title^=Packages]").locator("body").textContent();

const disk = await open(`${fileUrl}/${pages.image}`);
await disk.click("details.list summary");
seen.disk = { packages: await disk.frameLocator("iframe[title^=Packages]").locator("body").textContent() };

const print = await open(`${url}/${pages.list}`);
await print.emulateMedia({ media: "print" });
seen.print = { tools: await print.isVisible(".tools"), items: await print.locator(".item").count() };
await browser.close();
console.log(JSON.stringify(seen));
