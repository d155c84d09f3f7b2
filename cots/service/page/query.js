// The query: from the field to the request, and to the fragment of the address, which browsers do not send to the service.

const MINUS = /(^|\s)-(?:"([^"]+)"|([\p{L}\p{N}]\S*))/gu;
const WHERE = "where.";

export const emptyQuery = () => ({ text: "", image: null, imageName: "", imageKey: "", media: "any", where: {} });

// "a dog -snow" asks for a dog and keeps snow away; a minus alone, or within a word, is text.
export function splitMinus(text) {
  const minus = [];
  const rest = text.replace(MINUS, (_, before, quoted, word) => {
    minus.push(quoted || word);
    return before;
  });
  return { text: rest.replace(/\s+/g, " ").trim(), minus };
}

export function isBlank(query) {
  return !query.image && !query.text.trim();
}

export async function requestBody(query, k) {
  const parts = splitMinus(query.text);
  const { text, minus } = query.image || parts.text ? parts : { text: query.text, minus: [] };
  const body = { k, media: query.media };
  if (query.image) body.image = await base64(query.image);
  if (text) body.text = text;
  if (minus.length) body.minus = minus;
  if (Object.keys(query.where).length) body.where = query.where;
  return body;
}

export function toFragment(query) {
  if (isBlank(query)) return "";
  const fields = new URLSearchParams();
  if (query.imageKey) fields.set("image", query.imageKey);
  if (query.text) fields.set("q", query.text);
  if (query.media !== "any") fields.set("media", query.media);
  for (const [column, value] of Object.entries(query.where)) fields.set(WHERE + column, value);
  return `#${fields}`;
}

export function fromFragment(hash) {
  const query = emptyQuery();
  for (const [name, value] of new URLSearchParams(hash.slice(1))) {
    if (name === "q") query.text = value;
    else if (name === "image") query.imageKey = value;
    else if (name === "media" && ["image", "video", "text"].includes(value)) query.media = value;
    else if (name.startsWith(WHERE)) query.where[name.slice(WHERE.length)] = value;
  }
  return query;
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
