// Settings of the chat page: kept in this browser, sent with every request.

const $ = (id) => document.getElementById(id);
const form = $("settings-form");
const SETTINGS_KEY = "tokenway.settings";
const THEME_KEY = "tokenway.theme";
const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];

export function readStored(storage, key) {
  try {
    return JSON.parse(storage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function loadSettings() {
  const stored = readStored(localStorage, SETTINGS_KEY);
  for (const field of form.elements) {
    if (field.name) field.value = stored[field.name] ?? "";
  }
}

function saveSettings() {
  const stored = { model: $("model").value };
  for (const field of form.elements) {
    if (field.name && field.value !== "") stored[field.name] = field.value;
  }
  localStorage.setItem(SETTINGS_KEY, JSON.stringify(stored));
}

export function showSettings(visible) {
  $("settings").hidden = !visible;
  $("settings-toggle").setAttribute("aria-expanded", String(visible));
  if (visible) form.elements.system.focus();
}

/** The body of a request that goes on with `messages`. */
export function requestBody(messages) {
  const system = form.elements.system.value.trim();
  const body = {
    model: $("model").value,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    stream: true,
    stream_options: { include_usage: true },
  };
  let json = JSON.stringify(body).slice(0, -1);
  for (const name of NUMBERS) {
    const text = form.elements[name].value.trim();
    // The digits as typed: a 64-bit seed does not survive a JavaScript number.
    if (/^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text)) json += `,${JSON.stringify(name)}:${text}`;
  }
  return json + "}";
}

export function headers() {
  const key = $("api-key").value.trim();
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

function preferredTheme() {
  return localStorage.getItem(THEME_KEY) ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/** Empties every setting but the API key. */
function reset() {
  const key = $("api-key").value;
  form.reset();
  $("api-key").value = key;
  saveSettings();
}

/** The model that was chosen last. */
export function storedModel() {
  return readStored(localStorage, SETTINGS_KEY).model;
}

/** Fills the form and connects its controls. */
export function startSettings() {
  applyTheme(preferredTheme());
  loadSettings();
  $("settings-toggle").addEventListener("click", () => showSettings($("settings").hidden));
  $("settings-close").addEventListener("click", () => showSettings(false));
  $("reset").addEventListener("click", reset);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", saveSettings);
  $("model").addEventListener("change", saveSettings);
  $("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem(THEME_KEY, theme);
    applyTheme(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme(preferredTheme()));
}
