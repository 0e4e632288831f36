// The chat page. Model text reaches the document only as text nodes.

import { eventsOf, failureOf } from "./api.js";
import { allRead, attachedCount, NO_IMAGES, startImages, takeUrls } from "./images.js";
import { headers, readStored, requestBody, showSettings, startSettings, storedModel } from "./settings.js";

const $ = (id) => document.getElementById(id);
const prompt = $("prompt");
const scroller = $("scroller");
const CHAT_KEY = "tokenway.chat";
const MODELS_EVERY_MS = 15000;

/**
 * The conversation: `{role, content}` with an `element` each, as sent to the server but for the system prompt.
 * Content is a string or, with images, OpenAI's content parts.
 */
let messages = [];
/** Aborts the answer on its way; null when there is none. */
let running = null;

// ---------------------------------------------------------------- models

async function loadModels() {
  const select = $("model");
  let models;
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw await failureOf(response);
    models = (await response.json()).data;
  } catch (failure) {
    // Whatever was listed before stays usable; without a list, the page says why.
    if (select.options.length === 0) showNotice(`No models: ${failure.message}`);
    if (failure.status === 401 && $("settings").hidden && !$("api-key").value) showSettings(true);
    return;
  }
  const wanted = select.value || storedModel();
  const options = models.map(({ id, ready, vision }) => {
    const option = new Option(ready ? id : `${id} (not ready)`, id);
    option.dataset.vision = vision === true;
    option.selected = id === wanted;
    return option;
  });
  select.replaceChildren(...options);
  if ($("stats").textContent.startsWith("No models")) showNotice("");
  if (options.length === 0) showNotice("No models: no pipeline has been started.");
  showState();
}

function takesImages() {
  return $("model").selectedOptions[0]?.dataset.vision === "true";
}

// ---------------------------------------------------------------- messages on the page

function addMessage(role, content) {
  const element = $("message-template").content.cloneNode(true).querySelector(".message");
  element.classList.add(role);
  element.dataset.testid = `message-${role}`;
  element.setAttribute("aria-label", role === "user" ? "You" : "Model");
  element.querySelector(".who").textContent = role === "user" ? "You" : $("model").value;
  element.querySelector(".text").append(document.createTextNode(textOf(content)));
  element.querySelector(".images").append(...imageUrlsOf(content).map(imageInMessage));
  element.querySelector(".copy").hidden = role === "user" && textOf(content) === "";
  const message = { role, content, element };
  element.querySelector(".copy").addEventListener("click", (event) => copy(message, event.currentTarget));
  element.querySelector(".regenerate").addEventListener("click", () => regenerate(message));
  $("messages").append(element);
  messages.push(message);
  showState();
  return message;
}

function imageInMessage(url, index, all) {
  const image = new Image();
  image.src = url;
  image.alt = `Image ${index + 1} of ${all.length}`;
  return image;
}

function grow(message, text) {
  const stick = isAtBottom();
  message.content += text;
  message.element.querySelector(".text").firstChild.appendData(text);
  if (stick) scrollToBottom();
}

function showError(message, failure) {
  const stick = isAtBottom();
  const box = document.createElement("div");
  box.className = "error";
  box.dataset.testid = "error";
  box.setAttribute("role", "alert");
  box.append(failure.message);
  if (failure.code) {
    const code = document.createElement("code");
    code.textContent = ` (${failure.code})`;
    box.append(code);
  }
  message.element.querySelector(".bubble").after(box);
  if (stick) scrollToBottom();
}

function showState() {
  const busy = running !== null;
  $("empty").hidden = messages.length > 0;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("send").disabled = !canSend();
  $("attach").hidden = !takesImages();
  if (attachedCount() > 0 && !takesImages()) showNotice(NO_IMAGES);
  const last = messages.at(-1);
  for (const message of messages) {
    message.element.querySelector(".regenerate").hidden = busy || message !== last;
  }
}

/** Says below the text box what is wrong, until the next action; an empty `text` takes that back. */
function showNotice(text) {
  $("stats").classList.toggle("notice", text !== "");
  // Set again, the same text would be read aloud again, at each key.
  if ($("stats").textContent !== text) $("stats").textContent = text;
}

function isAtBottom() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
}

function scrollToBottom() {
  scroller.scrollTop = scroller.scrollHeight;
}

async function copy(message, button) {
  const label = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(textOf(message.content));
    label.textContent = "Copied";
  } catch {
    label.textContent = copyBySelection(message) ? "Copied" : "Press Ctrl+C";
  }
  setTimeout(() => (label.textContent = "Copy"), 1500);
}

/** The way for pages that are not served over HTTPS, where there is no clipboard API. */
function copyBySelection(message) {
  getSelection().selectAllChildren(message.element.querySelector(".text"));
  return document.execCommand("copy");
}

/** The messages as the server takes them; answers that failed before their first word are left out. */
function conversation() {
  const said = messages.filter(({ role, content }) => role === "user" || content !== "");
  return said.map(({ role, content }) => ({ role, content }));
}

function saveChat() {
  // A browser stores some 5 MB, which one image may exceed: a reloaded page knows only that there was one.
  const kept = conversation().map(({ role, content }) => ({ role, content: withoutImages(content) }));
  sessionStorage.setItem(CHAT_KEY, JSON.stringify({ messages: kept }));
}

// ---------------------------------------------------------------- content

/** What a message says: a plain string, or with images OpenAI's content parts, images first. */
function contentOf(text, urls) {
  if (urls.length === 0) return text;
  const images = urls.map((url) => ({ type: "image_url", image_url: { url } }));
  return text === "" ? images : [...images, { type: "text", text }];
}

function textOf(content) {
  if (typeof content === "string") return content;
  return content.find(({ type }) => type === "text")?.text ?? "";
}

function imageUrlsOf(content) {
  if (typeof content === "string") return [];
  return content.filter(({ type }) => type === "image_url").map((part) => part.image_url.url);
}

function withoutImages(content) {
  const lines = [...imageUrlsOf(content).map(() => "(image)"), textOf(content)];
  return lines.join("\n").trimEnd();
}

// ---------------------------------------------------------------- answers

function canSend() {
  if (running || $("model").value === "") return false;
  if (attachedCount() === 0) return prompt.value.trim() !== "";
  return takesImages() && allRead();
}

function send() {
  if (!canSend()) return;
  const content = contentOf(prompt.value.trim(), takeUrls());
  prompt.value = "";
  fitPrompt();
  showNotice("");
  addMessage("user", content);
  answer();
}

function regenerate(message) {
  if (running || message !== messages.at(-1)) return;
  messages.pop();
  message.element.remove();
  answer();
}

async function answer() {
  running = new AbortController();
  const body = requestBody(conversation());
  const message = addMessage("assistant", "");
  message.element.classList.add("pending");
  message.element.setAttribute("aria-busy", "true");
  scrollToBottom();
  const clock = { sent: performance.now(), first: null, last: null, usage: null, end: "" };
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body, signal: running.signal });
    if (!response.ok) throw await failureOf(response);
    const { signal } = running;
    const readOn = (id, last) => fetch(`v1/streams/${id}`, { headers: { ...headers(), "Last-Event-ID": last }, signal });
    for await (const event of eventsOf(response, readOn)) {
      take(event, message, clock);
      showStats(message, clock);
    }
    if (clock.end === "") clock.end = "cut off";
  } catch (failure) {
    if (failure.name === "AbortError") clock.end = "stopped";
    else {
      clock.end = "failed";
      showError(message, failure);
      if (failure.status === 401) showSettings(true);
    }
  }
  running = null;
  const stick = isAtBottom();
  message.element.classList.remove("pending");
  message.element.removeAttribute("aria-busy");
  showStats(message, clock);
  saveChat();
  showState();
  if (stick) scrollToBottom();
  prompt.focus({ preventScroll: true });
}

function take(event, message, clock) {
  if (event.error) throw Object.assign(new Error(event.error.message), { code: event.error.code });
  if (event.usage) clock.usage = event.usage;
  for (const choice of event.choices) {
    if (choice.delta.content) {
      clock.last = performance.now();
      clock.first ??= clock.last;
      grow(message, choice.delta.content);
    }
    if (choice.finish_reason) clock.end = choice.finish_reason === "length" ? "length limit" : "done";
  }
}

function showStats(message, { sent, first, last, usage, end }) {
  const parts = [];
  if (first !== null) parts.push(`TTFT ${Math.round(first - sent)} ms`);
  if (usage) {
    const seconds = (last - first) / 1000;
    // The first token marks the start, so it is not counted.
    if (usage.completion_tokens > 1 && seconds > 0) parts.push(`${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s`);
    parts.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
  }
  if (end !== "" && end !== "done") parts.push(end);
  const text = parts.join(" · ");
  message.element.querySelector(".message-stats").textContent = text;
  if (messages.includes(message) && !$("stats").classList.contains("notice")) $("stats").textContent = text;
}

// ---------------------------------------------------------------- wiring

function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function newChat() {
  running?.abort();
  messages = [];
  $("messages").replaceChildren();
  showNotice("");
  saveChat();
  showState();
  prompt.focus();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("input", () => {
  fitPrompt();
  showState();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("model").addEventListener("change", () => {
  showNotice("");
  showState();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) running.abort();
  else if (!$("settings").hidden) showSettings(false);
});
scroller.addEventListener("scroll", () => ($("to-bottom").hidden = isAtBottom() || messages.length === 0));
$("to-bottom").addEventListener("click", scrollToBottom);
$("stop").addEventListener("click", () => running?.abort());
$("new-chat").addEventListener("click", newChat);
$("api-key").addEventListener("change", loadModels);
setInterval(() => document.visibilityState === "visible" && !running && loadModels(), MODELS_EVERY_MS);

startSettings();
startImages({ takesImages, showNotice, showState });
for (const { role, content } of readStored(sessionStorage, CHAT_KEY).messages ?? []) addMessage(role, content);
showState();
scrollToBottom();
loadModels();
