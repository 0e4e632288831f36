// Drives the chat page in headless Chromium: chat_page.mjs URL CHROMIUM [PNG QUESTION ANSWER]
// With a PNG it also attaches that image, asks the question and wants the answer's words in the reply.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import fs from "node:fs";
import path from "node:path";
import assert from "node:assert/strict";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const require = createRequire(path.join(root, ".deps/node/package.json"));
const { chromium } = require("playwright-core");

const [url, executablePath, png, question, answer] = process.argv.slice(2);

/** Drops a file of `type` on the page, as a person does. */
async function drop(page, name, type, base64) {
  const dataTransfer = await page.evaluateHandle(([name, type, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    return transfer;
  }, [name, type, base64]);
  await page.dispatchEvent("#scroller", "dragover", { dataTransfer });
  await page.locator("#drop-target").waitFor();
  await page.dispatchEvent("#scroller", "drop", { dataTransfer });
  await page.locator("#drop-target").waitFor({ state: "hidden" });
}

async function checkImages(page) {
  const base64 = fs.readFileSync(png, "base64");
  const thumbnails = (count) =>
    page.waitForFunction((count) => document.querySelectorAll("#attachments img").length === count, count);
  await page.click("#new-chat");

  await drop(page, "dropped.png", "image/png", base64);
  await thumbnails(1);
  await page.press("#attachments .remove", "Enter");
  await thumbnails(0);
  await page.setInputFiles("#files", png);
  await thumbnails(1);
  await drop(page, "notes.txt", "text/plain", btoa("no image"));
  assert.match(await page.locator("#stats").innerText(), /notes\.txt is text\/plain/);
  await drop(page, "dropped.png", "image/png", base64);
  await thumbnails(2);
  await page.getByRole("button", { name: "Remove dropped.png" }).click();
  await thumbnails(1);

  await page.fill("#prompt", question);
  await page.locator("#send:enabled").waitFor();
  const [request] = await Promise.all([
    page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions")),
    page.press("#prompt", "Enter"),
  ]);
  assert.deepEqual(request.postDataJSON().messages.at(-1).content, [
    { type: "image_url", image_url: { url: `data:image/png;base64,${base64}` } },
    { type: "text", text: question },
  ]);
  await page.waitForFunction(() => document.querySelector("#stats").textContent.includes("tok"));
  const reply = await page.locator(".message.assistant .text").last().innerText();
  assert.ok(reply.includes(answer), `"${reply}" has no "${answer}"`);
  assert.equal(await page.locator(".message.user .bubble img").count(), 1);
  await thumbnails(0);
}

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
  // The usual temperature draws a wrong digit now and then.
  await page.evaluate(() => localStorage.setItem("tokenway.settings", JSON.stringify({ temperature: "0" })));
  await page.reload();
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

  if (png) await checkImages(page);

  assert.deepEqual(problems, []);
  assert.deepEqual(elsewhere, [], "the page asks nobody but its gateway");
  console.log("all checks passed");
} finally {
  await browser.close();
}
