// The page: sends queries and shows their results.

import * as api from "./api.js";
import { card } from "./cards.js";
import { emptyQuery, fromFragment, isBlank, requestBody, splitMinus, toFragment } from "./query.js";
import { open } from "./viewer.js";

const TYPING_MS = 160; // pause in typing after which the query is sent
const SLOW_MS = 180; // time after which a running query shows progress
const PAGE = 24;
const MENU = 50; // most values of a column that can be filtered by
const KEPT = 20; // pages that "back" shows as they were left
const STORED = /^[A-Za-z0-9-]+\/\d+\/\d+$/; // key of an indexed image: version, row, frame

const part = (id) => document.getElementById(id);
const results = part("results");
const text = part("text");
const images = new Map(); // query images by key
const left = new Map(); // answers by address
let query = emptyQuery();
let hits = [];
let answer = null; // the newest page of results
let running = new AbortController();
let typing = 0;
let typed = false; // whether the newest entry of the history is still being typed

// Queries

async function ask() {
  running.abort();
  clearTimeout(typing);
  if (isBlank(query)) return blank();
  const controller = (running = new AbortController());
  const slow = setTimeout(() => wait(true), SLOW_MS);
  try {
    const found = await api.search(await requestBody(query, PAGE), controller.signal);
    if (!controller.signal.aborted) show(found);
  } catch (error) {
    if (!controller.signal.aborted && error.name !== "AbortError") fail(error);
  } finally {
    clearTimeout(slow);
    if (controller === running) wait(false);
  }
}

async function more() {
  if (!answer?.next) return;
  const { signal } = running;
  const cursor = answer.next;
  answer = { ...answer, next: null };
  try {
    const page = await api.search({ cursor, k: PAGE }, signal);
    if (!signal.aborted) append(page);
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (error.status === 410) return ask(); // another version answers: from the beginning
    answer = { ...answer, next: cursor };
    part("status").textContent = `No more results could be loaded: ${error.message}`;
  }
}

// What the page shows

function wait(on) {
  part("progress").hidden = !on;
  results.classList.toggle("stale", on);
  results.setAttribute("aria-busy", on);
}

function only(name) {
  for (const note of ["intro", "nothing", "trouble"]) part(note).hidden = note !== name;
}

function clear(name) {
  only(name);
  hits = [];
  answer = null;
  results.replaceChildren();
  for (const id of ["status", "versions"]) part(id).textContent = "";
  for (const id of ["more", "weak"]) part(id).hidden = true;
}

function blank() {
  wait(false);
  clear("intro");
}

function show(found) {
  const focused = [...results.children].findIndex((shown) => shown.contains(document.activeElement));
  only(found.results.length ? null : "nothing");
  hits = [];
  results.classList.toggle("texts", query.media === "text");
  results.replaceChildren();
  const weak = found.fits === false;
  part("weak").hidden = !weak;
  part("weak").textContent = weak ? "Nothing here fits well. These results are the nearest." : ""; // read out if it changes
  const { index, encoders } = found.versions;
  const name = encoders.version ? `encoders ${encoders.version}` : `encoders ${encoders.digest.slice(0, 8)}`;
  part("versions").textContent = `Answered by ${index.name} ${index.version}, ${name}`;
  append(found);
  if (focused >= 0) results.children[Math.min(focused, hits.length - 1)]?.querySelector(".thumbnail").focus();
}

function append(page) {
  answer = page;
  hits = [...hits, ...page.results];
  results.append(...page.results.map((result) => card(part("card"), result, { open: enlarge, like })));
  const { minus } = splitMinus(query.text);
  const count = `${page.next ? "First " : ""}${hits.length} ${hits.length === 1 ? "result" : "results"}`;
  const without = minus.length ? `, without ${minus.join(", ")}` : "";
  part("status").textContent = `${count} in ${page.milliseconds} ms${without}`;
  part("more").hidden = !page.next;
  bottom.unobserve(part("more")); // to be told again if it is still in sight
  bottom.observe(part("more"));
}

function fail(error) {
  if (error.status === 401) return part("token").showModal();
  clear("trouble");
  const { message } = error;
  part("trouble-text").textContent = message.charAt(0).toUpperCase() + message.slice(1);
}

function paint() {
  const image = part("like-image");
  if (image.src) URL.revokeObjectURL(image.src);
  text.value = query.text;
  text.placeholder = query.image ? "How should it differ?" : "What are you looking for?";
  part("like").hidden = !query.image;
  image.removeAttribute("src");
  if (query.image) {
    image.src = URL.createObjectURL(query.image);
    image.alt = `Your query image: ${query.imageName}`;
    part("like-name").textContent = query.imageName;
  }
  for (const radio of part("ask").elements.media) radio.checked = radio.value === query.media;
  for (const menu of part("filters-body").querySelectorAll("select")) menu.value = query.where[menu.name] ?? "";
  const active = Object.keys(query.where).length;
  part("filters-active").textContent = active ? ` (${active})` : "";
}

function neighbour(result, by) {
  return hits[hits.indexOf(result) + by];
}

function enlarge(result) {
  open(result, { like, neighbour, fail });
}

// Changes of the query. An entry of the history is one query; letters that are typed one after the other change it.

function change(fields, { letters = false } = {}) {
  keep();
  query = { ...query, ...fields };
  const address = toFragment(query) || location.pathname;
  if (letters && typed) history.replaceState(null, "", address);
  else if (address !== (location.hash || location.pathname)) history.pushState(null, "", address);
  typed = letters;
}

function keep() {
  if (!answer) return;
  left.delete(location.hash);
  left.set(location.hash, { hits, answer, scroll: window.scrollY });
  if (left.size > KEPT) left.delete(left.keys().next().value);
}

function search(fields) {
  change(fields);
  paint();
  window.scrollTo({ top: 0 });
  return ask();
}

const withImage = (blob, imageName, imageKey) => {
  images.set(imageKey, { blob, imageName });
  return { image: blob, imageName, imageKey, text: "" };
};
const withoutImage = { image: null, imageName: "", imageKey: "" };

function searchImage(file) {
  if (file) search(withImage(file, file.name || "a pasted image", `own-${images.size + 1}`));
}

async function like(result) {
  if (result.media === "text") return search({ ...withoutImage, text: result.captions[0] });
  try {
    const blob = await api.preview(result.preview);
    await search(withImage(blob, result.id, result.preview.replace(/^\/preview\//, "")));
  } catch (error) {
    return fail(error);
  }
  results.querySelector(".thumbnail")?.focus({ preventScroll: true });
}

// The query of the address: when the page is opened, and at "back" and "forward".
async function recall() {
  running.abort();
  typed = false;
  const wanted = fromFragment(location.hash);
  const before = left.get(location.hash);
  try {
    if (wanted.imageKey && !images.has(wanted.imageKey) && STORED.test(wanted.imageKey)) {
      images.set(wanted.imageKey, { blob: await api.preview(`preview/${wanted.imageKey}`), imageName: "an indexed image" });
    }
  } catch (error) {
    return fail(error);
  }
  const { blob, imageName } = images.get(wanted.imageKey) ?? {};
  query = { ...wanted, ...(blob ? { image: blob, imageName } : withoutImage) };
  paint();
  if (!before || isBlank(query)) return ask();
  show({ ...before.answer, results: before.hits });
  window.scrollTo({ top: before.scroll });
}

// What the index holds

async function start() {
  try {
    const overview = await api.overview();
    const kinds = { image: overview.images, video: overview.videos, text: overview.captions };
    for (const radio of part("ask").elements.media) {
      radio.parentElement.hidden = radio.value in kinds && !kinds[radio.value];
    }
    for (const radio of part("ask").elements.media) {
      if (radio.value === "image" || radio.value === "video") radio.parentElement.hidden ||= !(kinds.image && kinds.video);
    }
    part("media").hidden = !kinds.text && !(kinds.image && kinds.video);
    part("filters-body").replaceChildren(...Object.entries(overview.columns).flatMap(menuOf));
    part("filters").hidden = !part("filters-body").children.length;
    part("samples-list").replaceChildren(...overview.samples.map(sampleOf));
    part("samples").hidden = !overview.samples.length;
    paint();
  } catch (error) {
    if (error.status !== 401) part("samples").hidden = true; // a query tells what is wrong
  }
}

function menuOf([column, values]) {
  if (values.length < 2 || values.length > MENU) return [];
  const label = document.createElement("label");
  const menu = Object.assign(document.createElement("select"), { name: column });
  menu.append(new Option("Any", ""), ...values.map(({ value, items }) => new Option(`${value} (${items})`, value)));
  menu.addEventListener("change", () => {
    const { [column]: _, ...where } = query.where;
    search({ where: menu.value ? { ...where, [column]: menu.value } : where });
  });
  label.append(column, menu);
  return [label];
}

function sampleOf(sample) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: sample });
  button.addEventListener("click", () => search({ ...withoutImage, text: sample }));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// Events

const bottom = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), {
  rootMargin: "400px",
});

text.addEventListener("input", () => {
  change({ text: text.value }, { letters: true });
  clearTimeout(typing);
  typing = setTimeout(ask, TYPING_MS);
});
part("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  typed = false;
  ask();
});
part("media").addEventListener("change", (event) => search({ media: event.target.value }));
part("unfilter").addEventListener("click", () => search({ media: "any", where: {} }));
part("more").addEventListener("click", async () => {
  const shown = results.children.length;
  await more();
  results.children[shown]?.querySelector(".thumbnail").focus();
});
part("again").addEventListener("click", ask);
part("unlike").addEventListener("click", () => {
  search(withoutImage);
  text.focus();
});
part("pick").addEventListener("click", () => part("file").click());
part("file").addEventListener("change", (event) => {
  searchImage(event.target.files[0]);
  event.target.value = "";
});
part("token-form").addEventListener("submit", () => {
  api.keepToken(part("token-value").value);
  part("token-value").value = "";
  start();
  recall();
});

const imageIn = (transfer) => [...(transfer?.files || [])].find((file) => file.type.startsWith("image/"));
document.addEventListener("paste", (event) => searchImage(imageIn(event.clipboardData)));
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
  searchImage(imageIn(event.dataTransfer));
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
  search({ ...withoutImage, text: "" });
  text.focus();
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const inField = event.target === text;
  const inControl = event.target.matches("select, input[type=radio]");
  const moving = event.key.startsWith("Arrow") && !inControl && (!inField || event.key === "ArrowDown");
  if (event.key === "/" && !inField) text.focus();
  else if (event.key === "Escape") escape();
  else if (!moving || !move(event.key)) return;
  event.preventDefault();
});
window.addEventListener("scroll", () => document.querySelector("header").classList.toggle("lifted", window.scrollY > 8), {
  passive: true,
});
window.addEventListener("popstate", recall);
history.scrollRestoration = "manual";

start();
recall();
text.focus();
