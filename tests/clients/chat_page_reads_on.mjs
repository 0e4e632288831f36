// Shows that the chat page reads on after its gateway died: chat_page_reads_on.mjs URL CHROMIUM
// Prints "streaming" when an answer is on its way: then whoever runs this kills the gateway and starts another. Prints
// the whole answer as JSON at its end.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import path from "node:path";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const require = createRequire(path.join(root, ".deps/node/package.json"));
const { chromium } = require("playwright-core");

const [url, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  await page.goto(`${url}/ui`);
  await page.evaluate(() =>
    localStorage.setItem("tokenway.settings", JSON.stringify({ temperature: "1.5", seed: "7", max_tokens: "400" })));
  await page.reload();
  await page.fill("#prompt", "Tell me a story about a fox.");
  await page.press("#prompt", "Enter");
  const text = page.locator(".message.assistant .text");
  await page.waitForFunction(() => document.querySelector(".message.assistant .text")?.textContent.length > 10);
  console.log("streaming");
  await page.waitForFunction(() => document.querySelector("#stop")?.offsetParent === null);
  if (await page.getByTestId("error").count()) throw new Error(await page.getByTestId("error").innerText());
  console.log(JSON.stringify(await text.textContent()));
} finally {
  await browser.close();
}
