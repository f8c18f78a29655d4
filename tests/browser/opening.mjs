// Open a page in Chromium several times, and search in it; print times in milliseconds as JSON.
// Usage: node opening.mjs NODE_MODULES CHROMIUM URL ROUNDS
import { pathToFileURL } from "node:url";

const [modules, executablePath, url, rounds] = process.argv.slice(2);
const { chromium } = await import(pathToFileURL(`${modules}/playwright-core/index.mjs`));
// A container has no user namespaces to make Chromium's own sandbox of.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"], timeout: 300_000 });
const seen = [];
for (const width of [390, 1440]) {
  for (let round = 0; round < Number(rounds); round += 1) {
    const context = await browser.newContext({ viewport: { width, height: 900 } });
    context.setDefaultTimeout(300_000);
    const page = await context.newPage();
    const session = await context.newCDPSession(page);
    // Of the thread's own processor time: other work on the machine is no part of it.
    await session.send("Performance.enable", { timeDomain: "threadTicks" });
    const busy = async () => {
      const { metrics } = await session.send("Performance.getMetrics");
      return metrics.find(({ name }) => name === "TaskDuration").value * 1000;
    };
    await page.goto(url, { waitUntil: "load" });
    // The first frame in which the list is drawn, and the count of it that its script writes.
    const opened = await page.evaluate(() => new Promise((done) =>
      requestAnimationFrame(() => setTimeout(() => done(performance.now())))));
    const opening = await busy();
    await page.focus("#q");
    const before = await busy();
    await page.keyboard.type("postgres");
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));
    seen.push({ width, opened, opening, search: (await busy()) - before });
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(seen));
