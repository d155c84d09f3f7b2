// A result enlarged: the stored image, or the video's frames one after the other, with captions and lineage.

import * as api from "./api.js";
import { lineageLists, titleOf } from "./cards.js";

const FRAME_MS = 500; // how long each frame of a video is shown
const part = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");

let shown = null; // the result
let frames = []; // addresses of its frames, those of blobs among them
let playing = 0; // the timer
let handlers = {};

export function open(result, { like, neighbour, fail }) {
  handlers = { like, neighbour, fail };
  if (!part("viewer").open) part("viewer").showModal();
  show(result);
}

async function show(result) {
  stop();
  release();
  shown = result;
  part("viewer-title").textContent = titleOf(result);
  const others = result.captions.filter((_, number) => number !== (result.best_caption ?? 0));
  part("viewer-captions").replaceChildren(...others.map((text) => element("li", text)));
  const facts = [["Rank", result.rank], ["Score", result.score.toFixed(3)], ...Object.entries(result.metadata)];
  part("viewer-facts").replaceChildren(
    ...facts.filter(([, value]) => value !== null).flatMap(([name, value]) => [
      element("dt", name), element("dd", typeof value === "object" ? JSON.stringify(value) : String(value)),
    ]),
  );
  part("viewer-like").textContent = result.media === "text" ? "Search for this caption" : "More like this";
  part("viewer-previous").disabled = !handlers.neighbour(result, -1);
  part("viewer-next").disabled = !handlers.neighbour(result, 1);
  part("viewer-lineage").open = false;
  part("viewer-player").hidden = result.frames < 2;
  await load(result);
}

async function load(result) {
  try {
    const base = result.preview.slice(0, result.preview.lastIndexOf("/") + 1);
    const numbers = result.frames > 1 ? [...Array(result.frames).keys()] : [result.frame];
    const blobs = await Promise.all(numbers.map((number) => api.preview(base + number)));
    if (shown !== result) return;
    frames = blobs.map((blob) => URL.createObjectURL(blob));
    part("viewer-frame").max = frames.length - 1;
    showFrame(result.frames > 1 ? result.frame : 0);
    part("viewer-image").alt = titleOf(result);
    setPlaying(frames.length > 1 && !still.matches);
  } catch (error) {
    part("viewer").close();
    handlers.fail(error);
  }
}

function showFrame(number) {
  part("viewer-image").src = frames[number];
  part("viewer-frame").value = number;
  part("viewer-number").textContent = `${number + 1} of ${frames.length}`;
  part("viewer-save").href = frames[number];
  const frame = frames.length > 1 ? `-${number + 1}` : "";
  part("viewer-save").download = `${shown.id.replace(/[^\p{L}\p{N}.-]+/gu, "_")}${frame}.jpg`;
}

function setPlaying(on) {
  stop();
  if (on) playing = setInterval(() => showFrame((Number(part("viewer-frame").value) + 1) % frames.length), FRAME_MS);
  part("viewer-play").textContent = on ? "Pause" : "Play";
}

function stop() {
  clearInterval(playing);
  playing = 0;
}

function release() {
  frames.forEach((url) => URL.revokeObjectURL(url));
  frames = [];
  part("viewer-image").removeAttribute("src");
}

function step(by) {
  const next = handlers.neighbour(shown, by);
  if (next) show(next);
}

function element(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

part("viewer").addEventListener("close", () => {
  stop();
  release();
  shown = null;
});
part("viewer").addEventListener("click", (event) => {
  if (event.target === part("viewer")) part("viewer").close(); // beside its content
});
part("viewer").addEventListener("keydown", (event) => {
  if (event.target === part("viewer-frame") || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  event.preventDefault();
  step(event.key === "ArrowLeft" ? -1 : 1);
});
part("viewer-previous").addEventListener("click", () => step(-1));
part("viewer-next").addEventListener("click", () => step(1));
part("viewer-play").addEventListener("click", () => setPlaying(!playing));
part("viewer-frame").addEventListener("input", (event) => {
  setPlaying(false);
  showFrame(Number(event.target.value));
});
part("viewer-like").addEventListener("click", () => {
  const result = shown;
  part("viewer").close();
  handlers.like(result);
});
part("viewer-lineage").addEventListener("toggle", async () => {
  if (!part("viewer-lineage").open) return;
  const body = part("viewer-lineage-body");
  body.textContent = "";
  try {
    body.replaceChildren(...lineageLists(await api.lineage(shown.lineage)));
  } catch (error) {
    body.textContent = error.message;
  }
});
