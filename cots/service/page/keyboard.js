// Keys: / focuses the field, arrows move through the results, Escape returns to the field, and there clears the query.

export function listenForKeys(field, results, clearQuery) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const inField = event.target === field;
    const inControl = event.target.matches("select, input[type=radio]");
    const isMove = event.key.startsWith("Arrow") && !inControl && (!inField || event.key === "ArrowDown");
    if (event.key === "/" && !inField) field.focus();
    else if (event.key === "Escape") leave(field, results, clearQuery);
    else if (!isMove || !moveFocus(event.key, field, results)) return;
    event.preventDefault();
  });
}

function leave(field, results, clearQuery) {
  if (!results.contains(document.activeElement)) clearQuery();
  field.focus();
}

function moveFocus(key, field, results) {
  const cards = [...results.children];
  const current = cards.indexOf(document.activeElement.closest(".card"));
  if (!cards.length || (current < 0 && key !== "ArrowDown")) return false;
  const perRow = countPerRow(cards);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow }[key];
  const target = current < 0 ? 0 : current + step;
  if (target < 0) field.focus();
  else cards[Math.min(target, cards.length - 1)].querySelector(".thumbnail").focus();
  return true;
}

function countPerRow(cards) {
  const top = cards[0].offsetTop;
  const firstBelow = cards.findIndex((card) => card.offsetTop > top);
  return firstBelow < 0 ? cards.length : firstBelow;
}
