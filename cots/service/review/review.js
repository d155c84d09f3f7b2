// Judges pairs by key: A accepts, R rejects, U takes the last verdict back, the arrows look without judging.

import { request } from "./api.js";

const DIGITS = 3;
const part = (id) => document.getElementById(id);
const path = (number) => `pairs/${number}`;

let progress = null; // of the round
let shown = null; // the pair, or null at the end
let busy = false; // a key that is pressed meanwhile would judge what nobody has seen yet

function element(name, text, className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className, dir: "auto" });
}

function frames(pair) {
  return [...Array(pair.frames).keys()].map((number) => {
    const alt = pair.frames > 1 ? `Frame ${number + 1} of the video to judge` : "The image to judge";
    return Object.assign(document.createElement("img"), { src: `${path(pair.number)}/${number}`, alt });
  });
}

function facts(pair) {
  const often = `dropped in ${pair.dropped} of ${pair.seen} ${pair.seen > 1 ? "steps" : "step"}`;
  return [`similarity in training ${pair.score.toFixed(DIGITS)}`, often, pair.id].map((text) => element("span", text));
}

function line({ caption, similarity }, className = "") {
  const item = element("li", "", className);
  const text = element("span", caption);
  text.dir = "auto";
  item.append(element("span", similarity.toFixed(DIGITS), "score"), text);
  return item;
}

function nearest(pair) {
  const lines = pair.nearest.map((other) => line(other));
  if (pair.similarity !== null) lines.push(line(pair, "this"));
  return lines.sort((a, b) => b.firstChild.textContent - a.firstChild.textContent);
}

function render() {
  const judged = progress.accepted + progress.rejected;
  part("progress").max = progress.total;
  part("progress").value = judged;
  part("status").textContent = `${judged} of ${progress.total} judged, ${progress.rejected} rejected`;
  part("trouble").hidden = true;
  part("pair").hidden = !shown;
  part("done").hidden = Boolean(shown);
  part("undo").disabled = progress.last === null;
  if (!shown) return;
  part("frames").replaceChildren(...frames(shown));
  part("question").textContent = `Does this caption describe the ${shown.frames > 1 ? "video" : "image"}?`;
  part("caption").textContent = shown.caption;
  part("facts").replaceChildren(...facts(shown));
  part("nearest").hidden = !shown.nearest.length;
  part("nearest-list").replaceChildren(...nearest(shown));
  part("others").hidden = !shown.others.length;
  part("others-list").replaceChildren(...shown.others.map((text) => element("li", text)));
  part("verdict").hidden = !shown.verdict;
  part("verdict").textContent = shown.verdict ? `You ${shown.verdict} this pair.` : "";
  part("previous").disabled = shown.number === 0;
  part("next").disabled = shown.number === progress.total - 1;
}

async function load(number) {
  shown = number === null ? null : await (await request(path(number))).json();
}

async function decide(number, verdict) {
  const headers = { "Content-Type": "application/json" };
  progress = await (await request(path(number), { method: "POST", body: JSON.stringify({ verdict }), headers })).json();
}

const actions = {
  accept: () => judge("accepted"),
  reject: () => judge("rejected"),
  undo: async () => {
    const { last } = progress;
    if (last === null) return;
    await decide(last, null);
    await load(last);
  },
  previous: () => move(-1),
  next: () => move(1),
  again: async () => {
    progress = await (await request("pairs")).json();
    await load(shown ? shown.number : progress.next);
  },
};

async function judge(verdict) {
  if (!shown) return;
  await decide(shown.number, verdict);
  await load(progress.next);
}

async function move(by) {
  const there = shown ? shown.number + by : -1;
  if (there >= 0 && there < progress.total) await load(there);
}

async function run(action) {
  if (busy) return;
  busy = true;
  try {
    await action();
    render();
  } catch (error) {
    part("trouble-text").textContent = error.message;
    part("trouble").hidden = false;
  } finally {
    busy = false;
  }
}

const KEYS = { a: "accept", r: "reject", u: "undo", arrowleft: "previous", arrowright: "next" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const action = KEYS[event.key.toLowerCase()];
  if (!action || !part("trouble").hidden) return;
  event.preventDefault();
  run(actions[action]);
});
for (const name of ["accept", "reject", "undo", "previous", "next", "again"]) {
  part(name).addEventListener("click", () => run(actions[name]));
}
part("done-undo").addEventListener("click", () => run(actions.undo));

run(actions.again);
