// Requests to the service, with the token if one is stored.

const TOKEN_KEY = "cots-token";

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The service cannot be reached.");
  }
  if (response.ok) return response;
  const message = await response.json().then((body) => body.error, () => `The service answered with status ${response.status}.`);
  throw new RequestError(response.status, message);
}

export async function search(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return (await request("search", { method: "POST", body: JSON.stringify(body), headers, signal })).json();
}

export async function overview() {
  return (await request("overview")).json();
}

export async function lineage(path) {
  return (await request(relative(path))).json();
}

export async function fetchBlob(path) {
  return (await request(relative(path))).blob();
}

// An <img> request cannot carry the token, so with a token the preview is fetched and shown as a blob.
export async function showPreview(image, path) {
  if (!sessionStorage.getItem(TOKEN_KEY)) {
    image.src = relative(path);
    return;
  }
  const url = URL.createObjectURL(await fetchBlob(path));
  image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  image.src = url;
}

// Makes a path relative, so that the page also works if a proxy serves it below a path.
export function relative(path) {
  return path.replace(/^\//, "");
}
