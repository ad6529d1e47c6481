// Makes elements, and texts for people of what the database has. No text becomes markup, and what cannot be seen is escaped.

const HIDDEN = /[\p{Cc}\p{Zl}\p{Zp}\u{ad}\u{61c}\u{180e}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2060}-\u{206f}\u{feff}\u{fff9}-\u{fffb}\u{e0000}-\u{e007f}]/gu;

/** A text on one line and in one direction: control characters and those that hide or turn others are escaped. */
export function visible(text) {
  return String(text).replace(HIDDEN, escaped);
}

function escaped(character) {
  return { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character] ?? `\\u{${character.codePointAt(0).toString(16)}}`;
}

/** The same with the escapes marked, as nodes. */
export function marked(text) {
  const nodes = document.createDocumentFragment();
  let end = 0;
  for (const found of String(text).matchAll(HIDDEN)) {
    nodes.append(text.slice(end, found.index), element("mark", {}, escaped(found[0])));
    end = found.index + found[0].length;
  }
  nodes.append(text.slice(end));
  return nodes;
}

/** Bytes that are no text: those of ASCII, and the others as numbers. */
export function markedBytes(base64) {
  const nodes = document.createDocumentFragment();
  for (const part of atob(base64).match(/[\x20-\x7e]+|[^\x20-\x7e]/g) ?? []) {
    const isText = /[\x20-\x7e]/.test(part);
    nodes.append(isText ? part : element("mark", {}, `\\x${part.charCodeAt(0).toString(16).padStart(2, "0")}`));
  }
  return nodes;
}

export function byId(id) {
  return document.getElementById(id);
}

/** A new element. No attributes that are null; `on…` are listeners; children are nodes, and texts to be escaped. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Of SVG. */
export function drawing(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : visible(child))));
  return made;
}

/** Changes a text, only if it is another one: what has not changed is neither drawn nor read out again. */
export function setText(at, text) {
  const shown = visible(text);
  if (at.textContent !== shown) at.textContent = shown;
}

/** For those who listen. */
export function say(text) {
  setText(byId("said"), text);
}

const grouped = new Intl.NumberFormat();
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function number(value) {
  return value === undefined ? "–" : grouped.format(value);
}

/** How many there are of something, with its name. */
export function counted(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** As PostgreSQL: units are powers of 1024. */
export function bytes(value) {
  if (value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && value < 10 ? 1 : 0;
  return `${new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value)} ${units[unit]}`;
}

/** A time as an element, in the reader's zone. */
export function time(text) {
  const at = new Date(text);
  return element("time", { datetime: text }, Number.isNaN(at.valueOf()) ? text : clock.format(at));
}

/** A length of time, such as `1 h 02 min`. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${grouped.format(Math.floor(whole / 3600))} h ${two(Math.floor(whole / 60) % 60)} min`;
}

/** Asks whether to do what cannot be undone. */
export function isSure(question, verb) {
  const dialog = byId("sure");
  setText(byId("sure-text"), question);
  setText(byId("sure-yes"), verb);
  dialog.returnValue = "";
  dialog.showModal();
  // The event of an earlier question may come when this one is open.
  return new Promise((resolve) => (dialog.onclose = () => dialog.open || resolve(dialog.returnValue === "yes")));
}

/** A list in pages, whose links it keeps: calls `ask` with the place that a page begins at. */
export class Pages {
  #starts = [null];

  constructor(name, turned) {
    this.newer = byId(`newer-${name}`);
    this.older = byId(`older-${name}`);
    this.newer.addEventListener("click", () => {
      this.#starts.pop();
      turned();
    });
    this.older.addEventListener("click", () => {
      this.#starts.push(this.next);
      turned();
    });
  }

  get start() {
    return this.#starts.at(-1);
  }

  reset() {
    this.#starts = [null];
  }

  /** Takes the link of a page that has come. */
  linked(page) {
    const link = page.link?.[0]?.url;
    this.next = link ? new URL(link, document.baseURI).searchParams.get("after") : null;
    this.older.hidden = this.next === null;
    this.newer.hidden = this.#starts.length === 1;
  }
}
