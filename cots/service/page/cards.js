// What was found, as elements of the page.

import { relative, showPreview } from "./api.js";

const DIGITS = 3;

export function card(template, result, { like, lineage }) {
  const element = template.content.firstElementChild.cloneNode(true);
  const [picture, image, badge, caption, rank, score, origin] = [
    ".picture", "img", ".badge", ".caption", ".rank", ".score", ".origin",
  ].map((name) => element.querySelector(name));
  const words = result.captions[0] || result.id;
  caption.textContent = words;
  caption.title = words;
  rank.textContent = result.rank;
  rank.setAttribute("aria-label", `Rank ${result.rank}`);
  score.textContent = result.score.toFixed(DIGITS);
  score.title = "Cosine similarity to what you asked for";
  origin.href = relative(result.lineage);
  origin.setAttribute("aria-label", `Lineage of result ${result.rank}`);
  origin.addEventListener("click", (event) => lineage(event, result));
  picture.setAttribute("aria-label", `Result ${result.rank}: ${words}. More like this.`);
  picture.addEventListener("click", () => like(result));
  badge.hidden = result.media !== "video";
  badge.textContent = `Clip, frame ${result.frame + 1}`;
  image.alt = words;
  image.addEventListener("error", () => image.classList.add("gone"));
  showPreview(image, result.preview).catch(() => image.classList.add("gone"));
  return element;
}

function list(title, rows) {
  const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!known.length) return [];
  const heading = Object.assign(document.createElement("h3"), { textContent: title });
  const pairs = document.createElement("dl");
  for (const [name, value, kind] of known) {
    pairs.append(Object.assign(document.createElement("dt"), { textContent: name }));
    pairs.append(Object.assign(document.createElement("dd"), { textContent: value, className: kind || "" }));
  }
  return [heading, pairs];
}

export function lineageLists(found) {
  const { index, encoders } = found.versions;
  const { item } = found;
  return [
    ...list("The item", [["Id", item.id], ["Kind", item.media], ["Split", item.split], ["Source", item.origin],
      ["Captions", item.captions.join(" · ")]]),
    ...list("What answered", [["Index", `${index.name} ${index.version}`],
      ["Encoders", [encoders.name, encoders.version].filter(Boolean).join(" ")], ["", encoders.digest, "digest"]]),
    ...list("Made from", [["Commit", found.git_commit, "digest"], ["Uncommitted", found.git_dirty === "true" ? "yes" : null],
      ["Parameters", found.params_digest, "digest"], ["Data", found.manifest_digest, "digest"],
      ["dvc.lock", found.dvc_lock_digest, "digest"]]),
    ...list("MLflow runs", Object.entries(found.runs).map(([stage, run]) => [stage, run, "digest"])),
    ...list("Promotion", [["Promoted", found.gate.promote], ["Because", found.gate.reasons]]),
    ...list("Measured", ["i2t.R1", "t2i.R1", "v2t.R1", "t2v.R1", "rsum"].map((name) => [name, found.metrics[name]])),
  ];
}
