// Look at a catalogue in Chromium; print what was seen as JSON, for tests/functional/test_catalogue.py.
// Usage: node catalogue.mjs NODE_MODULES CHROMIUM WHAT, as the test has it in JSON: the URLs of a signed
// repository (also by plain HTTP under a name, and from disk) and of an unsigned one, and names of images.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [modules, executablePath, what] = process.argv.slice(2);
const { url, plainUrl, fileUrl, unsignedUrl, image, withdrawn, twin, now } = JSON.parse(what);
const { chromium } = await import(pathToFileURL(`${modules}/playwright-core/index.mjs`));
const axe = await readFile(`${modules}/axe-core/axe.min.js`, "utf8");
// A container has no user namespaces to make Chromium's own sandbox of.
const args = ["--no-sandbox", `--host-resolver-rules=MAP ${new URL(plainUrl).hostname} 127.0.0.1`];
const browser = await chromium.launch({ executablePath, args, timeout: 300_000 });
const pages = { list: "index.html", image: `catalogue/${image}.html` };
const looks = [[320, "light"], [320, "dark"], [1440, "light"], [1440, "dark"]];
const looked = [
  ...Object.values(pages).map((page) => [`${url}/${page}`, looks]),
  ...[`${url}/catalogue/${withdrawn}.html`, `${url}/catalogue/${twin}.html`,
    `${unsignedUrl}/${pages.list}`, `${unsignedUrl}/${pages.image}`].map((page) => [page, [looks[0], looks[3]]]),
];
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

for (const [address, schemes] of looked) {
  const page = await open(address);
  for (const width of [320, 375, 640, 768, 1023, 1024, 1440, 1920]) {
    await page.setViewportSize({ width, height: 900 });
    const content = await page.evaluate(() => document.documentElement.scrollWidth);
    if (content > width) seen.wide.push(`${address} is ${content} px wide at ${width}`);
  }
  await page.context().close();
  for (const [width, colorScheme] of schemes) {
    const page = await open(address, { viewport: { width, height: 900 }, colorScheme });
    // What lies outside the window is not laid out, and axe takes the colours of what is beside it.
    await page.evaluate(() => {
      for (const item of document.querySelectorAll(".item")) item.style.contentVisibility = "visible";
    });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    for (const { id, nodes } of violations) {
      seen.axe.push(`${address} at ${width} ${colorScheme}: ${id}: ${nodes[0].html.slice(0, 200)}`);
    }
    await page.context().close();
  }
}

const list = await open(`${url}/${pages.list}`, { permissions: ["clipboard-read", "clipboard-write"] });
const texts = (page, selector) => page.evaluate((selector) =>
  [...document.querySelectorAll(selector)].map((each) => each.textContent), selector);
const names = (page = list) => texts(page, ".item:not([hidden]) h3");
const count = () => list.textContent("#count");
// What a button has copied, and what a screen reader is told of it, which is after that.
const copied = async (page, press) => {
  await list.evaluate(() => navigator.clipboard.writeText("nothing"));
  const told = page.evaluate(() => new Promise((done) => {
    const region = document.getElementById("said");
    new MutationObserver(() => region.textContent && done(region.textContent)).observe(region, { childList: true });
  }));
  await press();
  return { said: await told, text: await list.evaluate(() => navigator.clipboard.readText()) };
};
seen.all = await names();
// A single letter is no shortcut: who dictates says many.
await list.keyboard.type("/s?");
seen.focused = await list.evaluate(() => document.activeElement.tagName);
await list.fill("#q", "Trixie postgres");
seen.searched = { names: await names(), count: await count() };
await list.fill("#q", `${image}-LATEST`);
seen.byAlias = await names();
await list.fill("#q", "not for production");
seen.byNotes = await names();
await list.fill("#q", "");
await list.selectOption("#s", "withdrawn");
seen.withdrawn = { names: await names(), reason: await list.textContent(".item:not([hidden]) .why") };
await list.selectOption("#s", "rolled back");
seen.rolledBack = await list.textContent(".item:not([hidden]) .why");
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
  [...document.querySelectorAll(".item .button:first-child")].slice(0, 5).map((each) => each.firstChild.data));
await list.selectOption("#o", "published");
seen.newest = await texts(list, ".item dd > time");
await list.selectOption("#o", "built");
seen.oldest = await texts(list, ".item small time");
seen.copied = await copied(list, () => list.click(".use button >> nth=0"));
await list.selectOption("#o", "");
seen.listed = await copied(list, () => list.click(".sum button >> nth=0"));
const digest = seen.listed.text;
seen.byDigest = [];
for (const part of [digest.slice(0, 12), digest.slice(1, 13)]) {
  await list.fill("#q", part);
  seen.byDigest.push(await names());
}
await list.fill("#q", "");
await list.click(`.item h3 a >> text="${image}"`);
await list.waitForURL(`**/${pages.image}`);
seen.followed = await list.textContent("h1");
await list.click("details.list summary");
await list.fill("input[id^=filter]", "openssl");
seen.packages = await list.evaluate(() => [...document.querySelectorAll(".listed li")].map((each) => each.textContent));
seen.note = await list.locator("details.list .note").count();
seen.checksum = await copied(list, () => list.click("[data-copy^=sum] >> nth=0"));

const single = await open(`${unsignedUrl}/${pages.list}`);
seen.single = [await single.textContent("#count")];
await single.goto(`${unsignedUrl}/${pages.image}`);
await single.click("details.list summary");
await single.waitForSelector(".listed li");
seen.single.push(await single.textContent(".filter [role=status]"));

// By keyboard alone: to the list, through its fields, into an image's page, and a checksum from there.
const focused = () => list.evaluate(() => {
  const { activeElement: { id, textContent } } = document;
  return id || textContent.trim().split("\n")[0];
});
const pressTab = async () => { await list.keyboard.press("Tab"); return focused(); };
await list.goto(`${url}/${pages.list}`);
seen.walked = [await pressTab()];
await list.keyboard.press("Enter");
for (let step = 0; step < 8; step += 1) seen.walked.push(await pressTab());
await list.focus(".item h3 a");
await list.keyboard.press("Enter");
await list.waitForURL("**/catalogue/*");
while (!(await pressTab()).startsWith("Copy"));
seen.walkedChecksum = await copied(list, () => list.keyboard.press("Enter"));

// Without a clipboard of the page's own: over plain HTTP, and where writing it is refused.
const bare = await open(`${plainUrl}/${pages.list}`);
seen.isSecure = await bare.evaluate(() => isSecureContext);
seen.copiedPlainly = await copied(bare, () => bare.click(".use button >> nth=0"));
const refusing = await open(`${url}/${pages.list}`);
await refusing.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new Error("refused")); });
seen.copiedRefused = await copied(refusing, () => refusing.click(".use button >> nth=0"));
await refusing.evaluate(() => { document.execCommand = () => false; });
seen.notCopied = await copied(refusing, () => refusing.click(".use button >> nth=1"));
seen.selected = await refusing.evaluate(() => getSelection().toString());

// A card a phone wide, a row of a table on a desk; and how long ago, by a clock that stands.
for (const [name, width] of [["phone", 390], ["desk", 1440]]) {
  const page = await open(`${url}/${pages.list}`, { viewport: { width, height: 900 } });
  seen[name] = await page.evaluate(() => {
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    return { name: box(".item h3"), get: box(".item .get"), head: box(".head"), label: box(".item dt"),
      search: box("#q"), select: box("#s") };
  });
  await page.context().close();
}
const later = await browser.newContext();
await later.addInitScript((now) => { Date.now = () => now; }, now * 1000);
const aged = await later.newPage();
await aged.goto(`${url}/${pages.list}`);
await aged.waitForFunction(() => document.querySelector(".item small:has(time)").textContent.includes(";"));
seen.ago = await aged.evaluate(() => {
  const [published, built] = document.querySelectorAll(".item time");
  return [published.textContent, built.textContent, built.parentNode.textContent];
});

const plain = await open(`${url}/${pages.list}`, { javaScriptEnabled: false });
seen.plain = { items: await plain.locator(".item").count(), tools: await plain.isVisible(".tools") };
// A whole checksum is selected by a triple click, though it is cut off to the eye, in one line.
await plain.setViewportSize({ width: 320, height: 900 });
await plain.locator(".sum code").first().click({ clickCount: 3 });
const unscripted = {};
unscripted.selected = await plain.evaluate(() => getSelection().toString());
unscripted.title = await plain.locator(".sum code").first().getAttribute("title");
unscripted.lines = await plain.evaluate(() => {
  const code = document.querySelector(".sum code");
  return code.getBoundingClientRect().height / parseFloat(getComputedStyle(code).lineHeight);
});
seen.unscripted = unscripted;
await plain.goto(`${url}/${pages.image}`);
await plain.click("details.list summary");
await plain.click("text=Show what the spec says");
seen.plain.spec = await plain.frameLocator("iframe[title^=Spec]").locator("body").textContent();
seen.plain.packages = await plain.frameLocator("iframe[title^=Packages]").locator("body").textContent();

const disk = await open(`${fileUrl}/${pages.list}`);
await disk.fill("#q", "Trixie postgres");
seen.disk = { names: await names(disk) };
await disk.fill("#q", "");
await disk.click(`.item h3 a >> text="${image}"`);
await disk.waitForURL(`**/${pages.image}`);
await disk.click("details.list summary");
seen.disk.note = await disk.isVisible("text=Your browser's own search");
seen.disk.packages = await disk.frameLocator("iframe[title^=Packages]").locator("body").textContent();

const print = await open(`${url}/${pages.list}`);
await print.emulateMedia({ media: "print" });
seen.print = { tools: await print.isVisible(".tools"), items: await print.locator(".item").count() };
await browser.close();
console.log(JSON.stringify(seen));
