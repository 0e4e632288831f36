// The chat page. Model text reaches the document only as text nodes.

import { eventsOf, failureOf } from "./api.js";
import { headers, readStored, requestBody, showSettings, startSettings, storedModel } from "./settings.js";

const $ = (id) => document.getElementById(id);
const prompt = $("prompt");
const scroller = $("scroller");
const CHAT_KEY = "tokenway.chat";
const MODELS_EVERY_MS = 15000;

/** The conversation: `{role, content}` with an `element` each, as sent to the server but for the system prompt. */
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
    if (select.options.length === 0) $("stats").textContent = `No models: ${failure.message}`;
    if (failure.status === 401 && $("settings").hidden && !$("api-key").value) showSettings(true);
    return;
  }
  const wanted = select.value || storedModel();
  const options = models.map(({ id, ready }) => {
    const option = new Option(ready ? id : `${id} (not ready)`, id);
    option.selected = id === wanted;
    return option;
  });
  select.replaceChildren(...options);
  if ($("stats").textContent.startsWith("No models")) $("stats").textContent = "";
  if (options.length === 0) $("stats").textContent = "No models: no pipeline has been started.";
  showState();
}

// ---------------------------------------------------------------- messages on the page

function addMessage(role, content) {
  const element = $("message-template").content.cloneNode(true).querySelector(".message");
  element.classList.add(role);
  element.dataset.testid = `message-${role}`;
  element.setAttribute("aria-label", role === "user" ? "You" : "Model");
  element.querySelector(".who").textContent = role === "user" ? "You" : $("model").value;
  element.querySelector(".text").append(document.createTextNode(content));
  const message = { role, content, element };
  element.querySelector(".copy").addEventListener("click", (event) => copy(message, event.currentTarget));
  element.querySelector(".regenerate").addEventListener("click", () => regenerate(message));
  $("messages").append(element);
  messages.push(message);
  showState();
  return message;
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
  message.element.querySelector(".text").after(box);
  if (stick) scrollToBottom();
}

function showState() {
  const busy = running !== null;
  $("empty").hidden = messages.length > 0;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("send").disabled = prompt.value.trim() === "" || $("model").value === "";
  const last = messages.at(-1);
  for (const message of messages) {
    message.element.querySelector(".regenerate").hidden = busy || message !== last;
  }
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
    await navigator.clipboard.writeText(message.content);
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
  sessionStorage.setItem(CHAT_KEY, JSON.stringify({ messages: conversation() }));
}

// ---------------------------------------------------------------- answers

function send() {
  const text = prompt.value.trim();
  if (text === "" || running || $("model").value === "") return;
  prompt.value = "";
  fitPrompt();
  addMessage("user", text);
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
    for await (const event of eventsOf(response)) {
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
  if (messages.includes(message)) $("stats").textContent = text;
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
  $("stats").textContent = "";
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
for (const { role, content } of readStored(sessionStorage, CHAT_KEY).messages ?? []) addMessage(role, content);
showState();
scrollToBottom();
loadModels();
