// Requests to the service, with the token where it wants one.

const KEPT = "cots-token";

export class Refusal extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

function headers(more = {}) {
  const token = sessionStorage.getItem(KEPT);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export function keepToken(token) {
  sessionStorage.setItem(KEPT, token);
}

async function asked(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service cannot be reached.");
  }
  if (answer.ok) return answer;
  const words = await answer.json().then((body) => body.error, () => `The service answered with status ${answer.status}.`);
  throw new Refusal(answer.status, words);
}

export async function search({ text, picture, k, media }, signal) {
  const options = picture
    ? { method: "POST", body: picture, headers: { "Content-Type": picture.type || "application/octet-stream" }, signal }
    : { method: "POST", body: JSON.stringify({ text, k, media }), headers: { "Content-Type": "application/json" }, signal };
  return (await asked(picture ? `search/image?k=${k}&media=${media}` : "search", options)).json();
}

export async function lineage(path) {
  return (await asked(relative(path), {})).json();
}

export async function preview(path) {
  return (await asked(relative(path), {})).blob();
}

// A picture of the page cannot carry a token; one that was fetched can.
export async function showPreview(image, path) {
  if (!sessionStorage.getItem(KEPT)) {
    image.src = relative(path);
    return;
  }
  const address = URL.createObjectURL(await preview(path));
  image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  image.src = address;
}

// So that the page also works below a path of a proxy.
export function relative(path) {
  return path.replace(/^\//, "");
}
