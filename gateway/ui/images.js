// Images of the next message: dropped, pasted or picked, and shown as thumbnails until they are sent.

const $ = (id) => document.getElementById(id);
const prompt = $("prompt");
const IMAGES_MAX = 8;
const IMAGE_MIB_MAX = 10;
const IMAGE_TYPES = $("files").accept.split(",");

/** The notice that the chosen model cannot see what is attached. */
export const NO_IMAGES = "This model takes no images.";

/** The attached images: `{url, element}`, where `url` is null until the file has been read. */
let attachments = [];
/** What `startImages` was given. */
let page = null;

/** How many images the next message has so far, read or not. */
export function attachedCount() {
  return attachments.length;
}

/** Whether every attached image has been read, so that `takeUrls` gives no null. */
export function allRead() {
  return attachments.every(({ url }) => url !== null);
}

/** The images' `data:` URLs in order, which then are no longer attached. */
export function takeUrls() {
  const urls = attachments.map(({ url }) => url);
  attachments = [];
  $("attachments").replaceChildren();
  return urls;
}

function attach(files) {
  page.showNotice("");
  const refusals = new Set();
  for (const file of files) {
    const refusal = refusalOf(file);
    if (refusal === null) addAttachment(file);
    else refusals.add(refusal);
  }
  if (refusals.size > 0) page.showNotice([...refusals].join(" "));
}

/** Why `file` cannot be attached, or null. */
function refusalOf(file) {
  if (!page.takesImages()) return NO_IMAGES;
  if (!IMAGE_TYPES.includes(file.type)) {
    return `${file.name} is ${file.type || "of an unknown type"}; images are PNG, JPEG, WebP or GIF.`;
  }
  if (file.size > IMAGE_MIB_MAX * 1024 * 1024) return `${file.name} is larger than ${IMAGE_MIB_MAX} MiB.`;
  if (attachments.length >= IMAGES_MAX) return `A message takes at most ${IMAGES_MAX} images.`;
  return null;
}

async function addAttachment(file) {
  const element = $("attachment-template").content.cloneNode(true).querySelector(".attachment");
  const image = element.querySelector("img");
  const attachment = { url: null, element };
  image.alt = file.name;
  element.querySelector(".remove").setAttribute("aria-label", `Remove ${file.name}`);
  element.querySelector(".remove").addEventListener("click", () => removeAttachment(attachment));
  attachments.push(attachment);
  $("attachments").append(element);
  page.showState();
  try {
    image.src = await dataUrlOf(file);
    await image.decode();
    attachment.url = image.src;
  } catch {
    discard(attachment);
    page.showNotice(`${file.name} cannot be read as an image.`);
  }
  page.showState();
}

function dataUrlOf(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

function discard(attachment) {
  attachments = attachments.filter((other) => other !== attachment);
  attachment.element.remove();
}

/** Removes it at the user's wish; the keyboard's focus stays among the images while there are any. */
function removeAttachment(attachment) {
  const neighbour = attachment.element.nextElementSibling ?? attachment.element.previousElementSibling;
  discard(attachment);
  page.showNotice("");
  page.showState();
  (neighbour?.querySelector(".remove") ?? prompt).focus();
}

function bringsFiles(event) {
  return event.dataTransfer.types.includes("Files");
}

function dragOver(event) {
  if (!bringsFiles(event)) return;
  // Without this the browser would leave the page for the dropped file.
  event.preventDefault();
  $("drop-target").hidden = !page.takesImages();
}

function drop(event) {
  $("drop-target").hidden = true;
  if (!bringsFiles(event)) return;
  event.preventDefault();
  attach(event.dataTransfer.files);
  prompt.focus();
}

function paste(event) {
  const { files, types } = event.clipboardData;
  // Office programs put a picture of the copied text beside the text; there the text is meant.
  const isText = types.includes("text/plain") && types.includes("text/html");
  if (files.length === 0 || isText) return;
  event.preventDefault();
  attach(files);
}

/**
 * Connects the controls. `takesImages()` says whether the chosen model does, `showNotice(text)` tells the user,
 * and `showState()` is called after each change to what is attached.
 */
export function startImages({ takesImages, showNotice, showState }) {
  page = { takesImages, showNotice, showState };
  prompt.addEventListener("paste", paste);
  document.addEventListener("dragover", dragOver);
  // Only the leave that leads out of the page has no element that it leads to.
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && ($("drop-target").hidden = true));
  document.addEventListener("drop", drop);
  $("attach").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    attach($("files").files);
    // So that choosing the same file again is a change, too.
    $("files").value = "";
  });
}
