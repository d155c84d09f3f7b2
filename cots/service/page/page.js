// The page: sends queries and shows their results.

import * as api from "./api.js";
import { card, lineageLists } from "./cards.js";

const TYPING_MS = 160; // pause in typing after which the query is sent
const SLOW_MS = 180; // time after which a running query shows progress
const PAGE = 24;
const MAX_RESULTS = 96;

const part = (id) => document.getElementById(id);
const results = part("results");
const text = part("text");
const query = { text: "", image: null, k: PAGE, media: "any" };
let running = new AbortController();
let typing = 0;

async function ask() {
  running.abort();
  clearTimeout(typing);
  if (!query.image && !query.text.trim()) return blank();
  const controller = (running = new AbortController());
  const slow = setTimeout(() => wait(true), SLOW_MS);
  remember();
  try {
    const answer = await api.search(query, controller.signal);
    if (!controller.signal.aborted) show(answer);
  } catch (error) {
    if (!controller.signal.aborted && error.name !== "AbortError") fail(error);
  } finally {
    clearTimeout(slow);
    if (controller === running) wait(false);
  }
}

function wait(on) {
  part("progress").hidden = !on;
  results.classList.toggle("stale", on);
  results.setAttribute("aria-busy", on);
}

function only(name) {
  for (const note of ["intro", "nothing", "trouble"]) part(note).hidden = note !== name;
}

function blank() {
  wait(false);
  only("intro");
  results.replaceChildren();
  part("status").textContent = "";
  part("more").hidden = true;
  remember();
}

function show({ results: hits, versions, milliseconds }) {
  only(hits.length ? null : "nothing");
  results.classList.toggle("texts", query.media === "text");
  results.replaceChildren(...hits.map((result) => card(part("card"), result, { like, lineage })));
  part("more").hidden = hits.length < query.k || query.k >= MAX_RESULTS;
  const { index, encoders } = versions;
  const encoderName = encoders.version ? `encoders ${encoders.version}` : `encoders ${encoders.digest.slice(0, 8)}`;
  const count = `${hits.length} ${hits.length === 1 ? "result" : "results"}`;
  part("status").textContent = `${count} in ${milliseconds} ms · ${index.name} ${index.version} · ${encoderName}`;
}

function fail(error) {
  if (error.status === 401) return part("token").showModal();
  only("trouble");
  results.replaceChildren();
  part("more").hidden = true;
  part("status").textContent = "";
  const { message } = error;
  part("trouble-text").textContent = message.charAt(0).toUpperCase() + message.slice(1);
}

function setImage(blob, name) {
  const image = part("like-image");
  if (image.src) URL.revokeObjectURL(image.src);
  query.image = blob;
  query.k = PAGE;
  part("like").hidden = !blob;
  text.placeholder = blob ? "" : "What are you looking for?";
  if (!blob) return image.removeAttribute("src");
  image.src = URL.createObjectURL(blob);
  image.alt = `Your query image: ${name}`;
  part("like-name").textContent = name;
  text.value = query.text = "";
}

function askImage(file) {
  if (!file) return;
  setImage(file, file.name || "a pasted image");
  ask();
}

async function like(result) {
  if (result.media === "text") {
    setImage(null);
    text.value = query.text = result.captions[0];
    query.k = PAGE;
    return ask();
  }
  try {
    setImage(await api.preview(result.preview), result.id);
  } catch (error) {
    return fail(error);
  }
  window.scrollTo({ top: 0 });
  await ask();
  results.querySelector(".thumbnail")?.focus({ preventScroll: true });
}

async function lineage(event, result) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    part("lineage-body").replaceChildren(...lineageLists(await api.lineage(result.lineage)));
    part("lineage").showModal();
  } catch (error) {
    fail(error);
  }
}

// The URL fragment keeps a text query; browsers do not send it to the server.
function remember() {
  const fragment = query.image || !query.text ? "" : `#${new URLSearchParams({ q: query.text, media: query.media })}`;
  history.replaceState(null, "", fragment || location.pathname);
}

function recall() {
  const stored = new URLSearchParams(location.hash.slice(1));
  text.value = query.text = stored.get("q") || "";
  const media = document.querySelector(`input[name=media][value="${CSS.escape(stored.get("media") || "any")}"]`);
  if (media) {
    media.checked = true;
    query.media = media.value;
  }
  if (query.text) ask();
}

text.addEventListener("input", () => {
  if (query.image) setImage(null);
  query.text = text.value;
  query.k = PAGE;
  clearTimeout(typing);
  typing = setTimeout(ask, TYPING_MS);
});
part("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
part("ask").addEventListener("change", (event) => {
  if (event.target.name !== "media") return;
  query.media = event.target.value;
  query.k = PAGE;
  ask();
});
part("more").addEventListener("click", async () => {
  const shown = results.children.length;
  query.k = Math.min(query.k * 2, MAX_RESULTS);
  await ask();
  results.children[shown]?.querySelector(".thumbnail").focus();
});
part("again").addEventListener("click", ask);
part("unlike").addEventListener("click", () => {
  setImage(null);
  text.focus();
  ask();
});
part("pick").addEventListener("click", () => part("file").click());
part("file").addEventListener("change", (event) => {
  askImage(event.target.files[0]);
  event.target.value = "";
});
part("token-form").addEventListener("submit", () => {
  api.keepToken(part("token-value").value);
  part("token-value").value = "";
  ask();
});

const imageIn = (transfer) => [...(transfer?.files || [])].find((file) => file.type.startsWith("image/"));
document.addEventListener("paste", (event) => askImage(imageIn(event.clipboardData)));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  askImage(imageIn(event.dataTransfer));
});

// Keyboard: / focuses the field, arrows move through the results, Escape returns to the field and then empties it.
function columns(cards) {
  const top = cards[0].offsetTop;
  const next = cards.findIndex((element) => element.offsetTop > top);
  return next < 0 ? cards.length : next;
}

function move(key) {
  const cards = [...results.children];
  const here = cards.indexOf(document.activeElement.closest(".card"));
  if (!cards.length || (here < 0 && key !== "ArrowDown")) return false;
  const wide = columns(cards);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[key];
  const there = here < 0 ? 0 : here + step;
  if (there < 0) text.focus();
  else cards[Math.min(there, cards.length - 1)].querySelector(".thumbnail").focus();
  return true;
}

function escape() {
  if (results.contains(document.activeElement)) return text.focus();
  setImage(null);
  text.value = query.text = "";
  text.focus();
  ask();
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const inField = event.target === text;
  const moving = event.key.startsWith("Arrow") && event.target.type !== "radio" && (!inField || event.key === "ArrowDown");
  if (event.key === "/" && !inField) text.focus();
  else if (event.key === "Escape") escape();
  else if (!moving || !move(event.key)) return;
  event.preventDefault();
});
window.addEventListener("scroll", () => document.querySelector("header").classList.toggle("lifted", window.scrollY > 8), {
  passive: true,
});
window.addEventListener("hashchange", recall);

recall();
text.focus();
