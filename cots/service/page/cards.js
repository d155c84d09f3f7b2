// Search results and lineage as elements of the page.

import { showPreview } from "./api.js";

const DIGITS = 3;
const HEADLINE = /^([^.]+\.R1|rsum)$/; // of every direction, without chance levels and folds

export const titleOf = (result) => result.captions[result.best_caption ?? 0] || result.id;

export function buildCard(template, result, { enlarge, searchSimilar }) {
  const element = template.content.firstElementChild.cloneNode(true);
  const [thumbnail, image, badge, caption, rank, score, similar] = [
    ".thumbnail", "img", ".badge", ".caption", ".rank", ".score", ".similar",
  ].map((name) => element.querySelector(name));
  const title = titleOf(result);
  caption.textContent = title;
  caption.title = title;
  rank.textContent = result.rank;
  score.textContent = result.score.toFixed(DIGITS);
  score.title = "Cosine similarity to your query";
  similar.setAttribute("aria-label", `Search for more like result ${result.rank}`);
  similar.addEventListener("click", () => searchSimilar(result));
  thumbnail.setAttribute("aria-label", `Result ${result.rank}: ${title}. Enlarge.`);
  thumbnail.addEventListener("click", () => enlarge(result));
  badge.hidden = result.media !== "video";
  badge.textContent = "Video";
  image.alt = "";
  image.addEventListener("error", () => image.classList.add("gone"));
  showPreview(image, result.preview).catch(() => image.classList.add("gone"));
  return element;
}

function buildList(title, rows) {
  const present = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!present.length) return [];
  const heading = Object.assign(document.createElement("h3"), { textContent: title });
  const pairs = document.createElement("dl");
  for (const [name, value, kind] of present) {
    pairs.append(Object.assign(document.createElement("dt"), { textContent: name }));
    pairs.append(Object.assign(document.createElement("dd"), { textContent: value, className: kind || "" }));
  }
  return [heading, pairs];
}

export function buildLineage(lineage) {
  const { index, encoders } = lineage.versions;
  const { item } = lineage;
  return [
    ...buildList("Item", [["Id", item.id], ["Kind", item.media], ["Split", item.split], ["Source", item.origin]]),
    ...buildList("Answered by", [["Index", `${index.name} ${index.version}`],
      ["Encoders", [encoders.name, encoders.version].filter(Boolean).join(" ")], ["", encoders.digest, "digest"]]),
    ...buildList("Made from", [["Commit", lineage.git_commit, "digest"], ["Uncommitted", lineage.git_dirty === "true" ? "yes" : null],
      ["Parameters", lineage.params_digest, "digest"], ["Data", lineage.manifest_digest, "digest"],
      ["dvc.lock", lineage.dvc_lock_digest, "digest"]]),
    ...buildList("MLflow runs", Object.entries(lineage.runs).map(([stage, run]) => [stage, run, "digest"])),
    ...buildList("Promotion", [["Promoted", lineage.gate.promote], ["Reason", lineage.gate.reasons]]),
    ...buildList("Metrics", Object.entries(lineage.metrics).filter(([name]) => HEADLINE.test(name))),
  ];
}
