// Drives the chat page in headless Chromium: chat_page.mjs URL CHROMIUM
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import path from "node:path";
import assert from "node:assert/strict";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const require = createRequire(path.join(root, ".deps/node/package.json"));
const { chromium } = require("playwright-core");

const [url, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  const problems = [];
  const elsewhere = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (line) => line.type() === "error" && problems.push(line.text()));
  page.on("request", (request) => request.url().startsWith(url) || elsewhere.push(request.url()));

  await page.goto(`${url}/ui`);
  await page.fill("#prompt", "What is 12 + 34?");
  await page.press("#prompt", "Enter");
  const answers = page.locator(".message.assistant");
  await page.waitForFunction(() => document.querySelector("#stats")?.textContent.includes("tok"));
  assert.match(await answers.last().innerText(), /46/);

  await page.fill("#prompt", "Tell me a story about a fox.");
  await page.click("#send");
  await page.waitForFunction(() => document.querySelectorAll(".message.assistant").length === 2);
  await page.waitForFunction(() => {
    const all = document.querySelectorAll(".message.assistant");
    return all[all.length - 1].innerText.length > 80;
  });
  await page.waitForFunction(() => document.querySelector("#stop")?.offsetParent === null);

  assert.deepEqual(problems, []);
  assert.deepEqual(elsewhere, [], "the page asks nobody but its gateway");
  console.log("all checks passed");
} finally {
  await browser.close();
}
