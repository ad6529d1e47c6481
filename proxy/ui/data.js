// What is stored: types with their counts, and lines that loads have passed over.

import { Problem, get } from "./api.js";
import { Pages, byId, bytes, element, marked, markedBytes, number, say, time, visible } from "./show.js";
import { knowTypes } from "./start.js";

const ON_A_PAGE = 20;

/** Counts the readers: what one has asked for is not shown to the next. */
let era = 0;
const pages = new Pages("rejects", showRejects);

export function stopData() {
  era += 1;
  pages.reset();
  byId("type-rows").replaceChildren();
  byId("reject-list").replaceChildren();
  knowTypes([]);
}

/** Asks for something to show in a section; what goes wrong is shown there. */
async function shows(section, ask, show) {
  const error = byId(`${section}-part`).querySelector(".error");
  const mine = era;
  try {
    const answer = await ask();
    if (mine !== era) return;
    error.replaceChildren();
    show(answer);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (mine === era) error.replaceChildren(marked(problem.message));
  }
}

/** Asks for the types, and shows them. */
export async function showTypes() {
  await shows("types", () => get(["types"]), ({ types }) => {
    byId("type-rows").replaceChildren(...types.map(typeRow));
    knowTypes(types.map(({ type }) => type));
  });
}

function typeRow({ type, resources, bytes: size }) {
  const count = element("td", { class: "number" }, resources === undefined ? "unknown" : `≈ ${number(resources)}`);
  const button = element("button", { type: "button", class: "quiet", "aria-label": `Count ${visible(type)}` }, "Count");
  button.addEventListener("click", async () => {
    button.disabled = true;
    await shows("types", () => get(["types", type], {}, 0), ({ resources: exact }) => {
      count.textContent = number(exact);
      say(`${type}: ${number(exact)}`);
    });
    button.disabled = false;
  });
  return element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, type)), count,
    element("td", { class: "number" }, size === undefined ? "unknown" : bytes(size)), element("td", {}, button));
}

/** Asks for a page of rejects, and shows it. */
export async function showRejects() {
  await shows("rejects", () => get(["rejects"], { limit: ON_A_PAGE, after: pages.start }), (page) => {
    pages.linked(page);
    byId("no-rejects").hidden = page.rejects.length > 0;
    byId("reject-list").replaceChildren(...page.rejects.map(reject));
  });
}

function reject({ loaded, source, line, error, sqlstate, content, contentBase64 }) {
  return element("li", { class: "card reject" },
    element("p", { class: "head" }, `Line ${number(line)} of `, element("bdi", { class: "url" }, marked(source)), ", ", time(loaded)),
    element("p", { class: "error" }, marked(error), ` (${sqlstate})`),
    element("pre", { tabindex: "0", role: "region", "aria-label": `Line ${number(line)}` },
      element("code", { dir: "ltr" }, content === undefined ? markedBytes(contentBase64) : marked(content))));
}
