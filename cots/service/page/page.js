// The page: sends queries and shows their results.

import * as api from "./api.js";
import { buildCard } from "./cards.js";
import { listenForKeys } from "./keyboard.js";
import { emptyQuery, fromFragment, isBlank, requestBody, splitMinus, toFragment } from "./query.js";
import { openViewer } from "./viewer.js";

const TYPING_MS = 160; // pause in typing after which the query is sent
const SLOW_MS = 180; // time after which a running query shows progress
const PAGE_SIZE = 24;
const MAX_MENU = 50; // a column with more values gets no menu
const MAX_VISITED = 20; // results that "back" shows as they were left
const INDEXED_IMAGE = /^[A-Za-z0-9-]+\/\d+\/\d+$/; // key of an indexed image: version, row, frame

const byId = (id) => document.getElementById(id);
const results = byId("results");
const field = byId("text");
const mediaRadios = document.querySelectorAll("input[name=media]");
const queryImages = new Map(); // by key
const visited = new Map(); // results and scroll position, by address
let query = emptyQuery();
let shown = []; // results on the page
let lastAnswer = null; // the newest page of results
let running = new AbortController();
let typingTimer = 0;
let isTyping = false; // whether the newest entry of the history is still being typed

// Queries

async function runQuery() {
  running.abort();
  clearTimeout(typingTimer);
  if (isBlank(query)) return showIntro();
  const controller = (running = new AbortController());
  const slowTimer = setTimeout(() => setBusy(true), SLOW_MS);
  try {
    const answer = await api.search(await requestBody(query, PAGE_SIZE), controller.signal);
    if (!controller.signal.aborted) showAnswer(answer);
  } catch (error) {
    if (!controller.signal.aborted && error.name !== "AbortError") showError(error);
  } finally {
    clearTimeout(slowTimer);
    if (controller === running) setBusy(false);
  }
}

async function loadMore() {
  if (!lastAnswer?.next) return;
  const { signal } = running;
  const cursor = lastAnswer.next;
  lastAnswer = { ...lastAnswer, next: null };
  try {
    const answer = await api.search({ cursor, k: PAGE_SIZE }, signal);
    if (!signal.aborted) addResults(answer);
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (error.status === 410) return runQuery(); // another version answers now: begin again
    lastAnswer = { ...lastAnswer, next: cursor };
    byId("status").textContent = `No more results could be loaded: ${error.message}`;
  }
}

// What the page shows

function setBusy(busy) {
  byId("progress").hidden = !busy;
  results.classList.toggle("stale", busy);
  results.setAttribute("aria-busy", busy);
}

function showNote(id) {
  for (const note of ["intro", "nothing", "trouble"]) byId(note).hidden = note !== id;
}

function showNoteAlone(id) {
  showNote(id);
  shown = [];
  lastAnswer = null;
  results.replaceChildren();
  for (const text of ["status", "versions"]) byId(text).textContent = "";
  for (const element of ["more", "weak"]) byId(element).hidden = true;
}

function showIntro() {
  setBusy(false);
  showNoteAlone("intro");
}

function showAnswer(answer) {
  const focused = [...results.children].findIndex((card) => card.contains(document.activeElement));
  showNote(answer.results.length ? null : "nothing");
  shown = [];
  results.classList.toggle("texts", query.media === "text");
  results.replaceChildren();
  const weak = answer.fits === false;
  byId("weak").hidden = !weak;
  byId("weak").textContent = weak ? "Nothing here fits well. These results are the nearest." : ""; // a change is read out
  const { index, encoders } = answer.versions;
  const name = encoders.version ? `encoders ${encoders.version}` : `encoders ${encoders.digest.slice(0, 8)}`;
  byId("versions").textContent = `Answered by ${index.name} ${index.version}, ${name}`;
  addResults(answer);
  if (focused >= 0) results.children[Math.min(focused, shown.length - 1)]?.querySelector(".thumbnail").focus();
}

function addResults(answer) {
  lastAnswer = answer;
  shown = [...shown, ...answer.results];
  results.append(...answer.results.map((result) => buildCard(byId("card"), result, { enlarge, searchSimilar })));
  const { minus } = splitMinus(query.text);
  const count = `${answer.next ? "First " : ""}${shown.length} ${shown.length === 1 ? "result" : "results"}`;
  const without = minus.length ? `, without ${minus.join(", ")}` : "";
  byId("status").textContent = `${count} in ${answer.milliseconds} ms${without}`;
  byId("more").hidden = !answer.next;
  endOfResults.unobserve(byId("more")); // so that the observer fires again if the button is still in view
  endOfResults.observe(byId("more"));
}

function showError(error) {
  if (error.status === 401) return byId("token").showModal();
  showNoteAlone("trouble");
  const { message } = error;
  byId("trouble-text").textContent = message.charAt(0).toUpperCase() + message.slice(1);
}

function showQuery() {
  const image = byId("like-image");
  if (image.src) URL.revokeObjectURL(image.src);
  field.value = query.text;
  field.placeholder = query.image ? "How should it differ?" : "What are you looking for?";
  byId("like").hidden = !query.image;
  image.removeAttribute("src");
  if (query.image) {
    image.src = URL.createObjectURL(query.image);
    image.alt = `Your query image: ${query.imageName}`;
    byId("like-name").textContent = query.imageName;
  }
  for (const radio of mediaRadios) radio.checked = radio.value === query.media;
  for (const menu of byId("filters-body").querySelectorAll("select")) menu.value = query.where[menu.name] ?? "";
  const active = Object.keys(query.where).length;
  byId("filters-active").textContent = active ? ` (${active})` : "";
}

function findNeighbour(result, offset) {
  return shown[shown.indexOf(result) + offset];
}

function enlarge(result) {
  openViewer(result, { searchSimilar, findNeighbour, showError });
}

// Changes of the query. Each query is an entry of the browser's history; while one types, the entry changes.

function setQuery(fields, { typing = false } = {}) {
  rememberResults();
  query = { ...query, ...fields };
  const address = toFragment(query) || location.pathname;
  if (typing && isTyping) history.replaceState(null, "", address);
  else if (address !== (location.hash || location.pathname)) history.pushState(null, "", address);
  isTyping = typing;
}

function rememberResults() {
  if (!lastAnswer) return;
  visited.delete(location.hash);
  visited.set(location.hash, { shown, lastAnswer, scroll: window.scrollY });
  if (visited.size > MAX_VISITED) visited.delete(visited.keys().next().value);
}

function search(fields) {
  setQuery(fields);
  showQuery();
  window.scrollTo({ top: 0 });
  return runQuery();
}

const NO_IMAGE = { image: null, imageName: "", imageKey: "" };

function keepImage(blob, imageName, imageKey) {
  queryImages.set(imageKey, { blob, imageName });
  return { image: blob, imageName, imageKey, text: "" };
}

function searchImage(file) {
  if (file) search(keepImage(file, file.name || "a pasted image", `own-${queryImages.size + 1}`));
}

async function searchSimilar(result) {
  if (result.media === "text") return search({ ...NO_IMAGE, text: result.captions[0] });
  try {
    const blob = await api.fetchBlob(result.preview);
    await search(keepImage(blob, result.id, result.preview.replace(/^\/preview\//, "")));
  } catch (error) {
    return showError(error);
  }
  results.querySelector(".thumbnail")?.focus({ preventScroll: true });
}

// The query of the address: when the page is opened, and at "back" and "forward".
async function restoreQuery() {
  running.abort();
  isTyping = false;
  const restored = fromFragment(location.hash);
  const remembered = visited.get(location.hash);
  const key = restored.imageKey;
  try {
    if (key && !queryImages.has(key) && INDEXED_IMAGE.test(key)) {
      queryImages.set(key, { blob: await api.fetchBlob(`preview/${key}`), imageName: "an indexed image" });
    }
  } catch (error) {
    return showError(error);
  }
  const { blob, imageName } = queryImages.get(key) ?? {};
  query = { ...restored, ...(blob ? { image: blob, imageName } : NO_IMAGE) };
  showQuery();
  if (!remembered || isBlank(query)) return runQuery();
  showAnswer({ ...remembered.lastAnswer, results: remembered.shown });
  window.scrollTo({ top: remembered.scroll });
}

// What the index holds

async function showOverview() {
  try {
    const overview = await api.overview();
    const counts = { image: overview.images, video: overview.videos, text: overview.captions };
    const mixed = counts.image > 0 && counts.video > 0;
    for (const radio of mediaRadios) {
      const isNeeded = { any: true, image: mixed, video: mixed, text: counts.text > 0 }[radio.value];
      radio.parentElement.hidden = !isNeeded;
    }
    byId("media").hidden = !counts.text && !mixed;
    byId("filters-body").replaceChildren(...Object.entries(overview.columns).flatMap(buildMenu));
    byId("filters").hidden = !byId("filters-body").children.length;
    byId("samples-list").replaceChildren(...overview.samples.map(buildSample));
    byId("samples").hidden = !overview.samples.length;
    showQuery();
  } catch (error) {
    if (error.status !== 401) byId("samples").hidden = true; // the first query shows what is wrong
  }
}

function buildMenu([column, values]) {
  if (values.length < 2 || values.length > MAX_MENU) return [];
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

function buildSample(text) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text, dir: "auto" });
  button.addEventListener("click", () => search({ ...NO_IMAGE, text }));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// Events

const endOfResults = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && loadMore(), {
  rootMargin: "400px",
});

field.addEventListener("input", () => {
  setQuery({ text: field.value }, { typing: true });
  clearTimeout(typingTimer);
  typingTimer = setTimeout(runQuery, TYPING_MS);
});
byId("query").addEventListener("submit", (event) => {
  event.preventDefault();
  isTyping = false;
  runQuery();
});
byId("media").addEventListener("change", (event) => search({ media: event.target.value }));
byId("unfilter").addEventListener("click", () => search({ media: "any", where: {} }));
byId("more").addEventListener("click", async () => {
  const count = results.children.length;
  await loadMore();
  results.children[count]?.querySelector(".thumbnail").focus();
});
byId("again").addEventListener("click", runQuery);
byId("unlike").addEventListener("click", () => {
  search(NO_IMAGE);
  field.focus();
});
byId("pick").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => {
  searchImage(event.target.files[0]);
  event.target.value = "";
});
byId("token-form").addEventListener("submit", () => {
  api.keepToken(byId("token-value").value);
  byId("token-value").value = "";
  showOverview();
  restoreQuery();
});

const firstImage = (transfer) => [...(transfer?.files || [])].find((file) => file.type.startsWith("image/"));
document.addEventListener("paste", (event) => searchImage(firstImage(event.clipboardData)));
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
  searchImage(firstImage(event.dataTransfer));
});

listenForKeys(field, results, () => search({ ...NO_IMAGE, text: "" }));
window.addEventListener("scroll", () => document.querySelector("header").classList.toggle("lifted", window.scrollY > 8), {
  passive: true,
});
window.addEventListener("popstate", restoreQuery);
history.scrollRestoration = "manual";

showOverview();
restoreQuery();
field.focus();
