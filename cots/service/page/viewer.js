// The viewer enlarges a result: the original where the service gives it, else the stored image, or a video's frames one after another,
// with captions and lineage.

import * as api from "./api.js";
import { buildLineage, titleOf } from "./cards.js";

const FRAME_MS = 500; // how long each frame of a video is shown
const byId = (id) => document.getElementById(id);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

let shown = null; // the result
let frameUrls = []; // blob addresses of its frames
let playTimer = 0; // 0 while paused
let handlers = {};

export function openViewer(result, { searchSimilar, findNeighbour, showError }) {
  handlers = { searchSimilar, findNeighbour, showError };
  if (!byId("viewer").open) byId("viewer").showModal();
  show(result);
}

async function show(result) {
  stop();
  release();
  shown = result;
  byId("viewer-title").textContent = titleOf(result);
  const others = result.captions.filter((_, number) => number !== (result.best_caption ?? 0));
  byId("viewer-captions").replaceChildren(...others.map((text) => element("li", text)));
  const facts = [["Rank", result.rank], ["Score", result.score.toFixed(3)], ...Object.entries(result.metadata)];
  byId("viewer-facts").replaceChildren(
    ...facts.filter(([, value]) => value !== null).flatMap(([name, value]) => [
      element("dt", name), element("dd", typeof value === "object" ? JSON.stringify(value) : String(value)),
    ]),
  );
  byId("viewer-like").textContent = result.media === "text" ? "Search for this caption" : "More like this";
  byId("viewer-previous").disabled = !handlers.findNeighbour(result, -1);
  byId("viewer-next").disabled = !handlers.findNeighbour(result, 1);
  byId("viewer-lineage").open = false;
  byId("viewer-player").hidden = result.frames < 2;
  byId("viewer-note").textContent = "";
  await load(result);
}

async function load(result) {
  try {
    const base = result.preview.slice(0, result.preview.lastIndexOf("/") + 1);
    const numbers = result.frames > 1 ? [...Array(result.frames).keys()] : [result.frame];
    const blobs = await Promise.all(numbers.map((number) => api.fetchBlob(base + number)));
    if (shown !== result) return;
    frameUrls = blobs.map((blob) => URL.createObjectURL(blob));
    byId("viewer-frame").max = frameUrls.length - 1;
    showFrame(result.frames > 1 ? result.frame : 0);
    byId("viewer-image").alt = titleOf(result);
    setPlaying(frameUrls.length > 1 && !reducedMotion.matches);
  } catch (error) {
    byId("viewer").close();
    handlers.showError(error);
    return;
  }
  if (result.original) await loadOriginal(result);
}

// The file that the image was made from, in place of the stored image; where it cannot be had, that one stays.
async function loadOriginal(result) {
  const showNote = (message) => shown === result && (byId("viewer-note").textContent = message);
  let url;
  try {
    const blob = await api.fetchBlob(result.original);
    if (shown !== result) return;
    url = URL.createObjectURL(blob);
  } catch (error) {
    showNote(`This is the stored thumbnail: ${error.message}`);
    return;
  }
  frameUrls.push(url); // released with the others
  byId("viewer-save").href = url;
  byId("viewer-save").download = fileName(result.id.split("/").pop());
  byId("viewer-save").textContent = "Save original";
  try {
    await Object.assign(new Image(), { src: url }).decode();
    if (shown === result) byId("viewer-image").src = url;
  } catch {
    showNote("This browser cannot show the original. This is the stored thumbnail; what you save is the original.");
  }
}

const fileName = (id) => id.replace(/[^\p{L}\p{N}.-]+/gu, "_");

function showFrame(number) {
  byId("viewer-image").src = frameUrls[number];
  byId("viewer-frame").value = number;
  byId("viewer-number").textContent = `${number + 1} of ${frameUrls.length}`;
  byId("viewer-save").href = frameUrls[number];
  const frame = frameUrls.length > 1 ? `-${number + 1}` : "";
  byId("viewer-save").download = `${fileName(shown.id)}${frame}.jpg`;
  byId("viewer-save").textContent = "Save image";
}

function setPlaying(on) {
  stop();
  if (on) playTimer = setInterval(() => showFrame((Number(byId("viewer-frame").value) + 1) % frameUrls.length), FRAME_MS);
  byId("viewer-play").textContent = on ? "Pause" : "Play";
}

function stop() {
  clearInterval(playTimer);
  playTimer = 0;
}

function release() {
  frameUrls.forEach((url) => URL.revokeObjectURL(url));
  frameUrls = [];
  byId("viewer-image").removeAttribute("src");
}

function step(by) {
  const next = handlers.findNeighbour(shown, by);
  if (next) show(next);
}

function element(name, text) {
  return Object.assign(document.createElement(name), { textContent: text, dir: "auto" });
}

byId("viewer").addEventListener("close", () => {
  stop();
  release();
  shown = null;
});
byId("viewer").addEventListener("click", (event) => {
  if (event.target === byId("viewer")) byId("viewer").close(); // beside its content
});
byId("viewer").addEventListener("keydown", (event) => {
  if (event.target === byId("viewer-frame") || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  event.preventDefault();
  step(event.key === "ArrowLeft" ? -1 : 1);
});
byId("viewer-previous").addEventListener("click", () => step(-1));
byId("viewer-next").addEventListener("click", () => step(1));
byId("viewer-play").addEventListener("click", () => setPlaying(!playTimer));
byId("viewer-frame").addEventListener("input", (event) => {
  setPlaying(false);
  showFrame(Number(event.target.value));
});
byId("viewer-like").addEventListener("click", () => {
  const result = shown;
  byId("viewer").close();
  handlers.searchSimilar(result);
});
byId("viewer-lineage").addEventListener("toggle", async () => {
  if (!byId("viewer-lineage").open) return;
  const body = byId("viewer-lineage-body");
  body.textContent = "";
  try {
    body.replaceChildren(...buildLineage(await api.lineage(shown.lineage)));
  } catch (error) {
    body.textContent = error.message;
  }
});
