// Starts imports, loads of files and exports.

import { Problem, address, ask, upload } from "./api.js";
import { openJob } from "./jobs.js";
import { byId, bytes, counted, element, marked, number, say, setText, visible } from "./show.js";

/** So many loads are listed. */
const LISTED = 20;
const queue = [];
let running = null;
/** Counts the readers: a load that one has started is none of the next one's. */
let era = 0;

/** Forgets what a reader has typed and loaded, and breaks off what is loading. */
export function stopStarts() {
  era += 1;
  queue.length = 0;
  running?.abort();
  byId("uploads").replaceChildren();
  byId("import-form").reset();
  byId("export-form").reset();
  byId("of-group").hidden = true;
}

/** Has a form do something; what went wrong is shown in it. */
function submits(form, start) {
  const error = form.querySelector(".error");
  const button = form.querySelector("button.main");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    setText(error, "");
    button.disabled = true;
    try {
      await start();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      error.replaceChildren(marked(problem.message));
    } finally {
      button.disabled = false;
    }
  });
}

function lines(id) {
  return byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
}

submits(byId("import-form"), async () => {
  const resourceType = byId("import-type").value.trim();
  const request = { inputs: lines("urls").map((url) => (resourceType ? { url, resourceType } : { url })) };
  const id = byId("import-id").value.trim();
  if (id) request.id = id;
  const boxes = { "skip-unchanged": "skipUnchanged", "only-new": "onlyNew", history: "update" };
  for (const [box, member] of Object.entries(boxes)) if (byId(box).checked) request[member] = true;
  if (byId("whole").checked) request.mode = "transaction";
  const path = byId("import-form-of").value === "fhir" ? ["fhir", "$import"] : ["$import"];
  const headers = { "Content-Type": "application/json" };
  const { answer } = await ask("POST", address(path), { body: JSON.stringify(request), headers });
  byId("import-form").reset();
  say(`import ${answer.id} has started`);
  openJob("import", answer.id);
});

submits(byId("export-form"), async () => {
  const level = byId("level").value;
  const group = byId("group").value.trim();
  const parameter = [];
  const add = (name, type, value) => parameter.push({ name, [`value${type}`]: value });
  for (const box of byId("export-types").querySelectorAll("input:checked")) add("_type", "String", box.value);
  // The field is in the reader's zone.
  if (byId("since").value) add("_since", "Instant", new Date(byId("since").value).toISOString());
  for (const filter of lines("filters")) add("_typeFilter", "String", filter);
  if (byId("format").value) add("contentEncoding", "Code", byId("format").value);
  const path = ["fhir", ...{ "": [], Patient: ["Patient"], Group: ["Group", group] }[level], "$export"];
  if (level === "Group" && !group) throw new Problem(0, "Which Group? Its id is missing.");
  const { location: status } = await ask("POST", address(path), {
    body: JSON.stringify({ resourceType: "Parameters", parameter }),
    headers: { "Content-Type": "application/fhir+json", Prefer: "respond-async" },
  });
  const id = decodeURIComponent(new URL(status, document.baseURI).pathname.split("/").at(-1));
  say(`export ${id} has started`);
  openJob("export", id);
});

byId("level").addEventListener("change", () => (byId("of-group").hidden = byId("level").value !== "Group"));

/** Takes the types that can be exported, and that lines may be of. */
export function knowTypes(names) {
  const box = (name) => element("label", { class: "check" }, element("input", { type: "checkbox", value: name }), ` ${visible(name)}`);
  const chosen = new Set([...byId("export-types").querySelectorAll("input:checked")].map((box) => box.value));
  byId("export-types").replaceChildren(...names.map(box));
  for (const input of byId("export-types").querySelectorAll("input")) input.checked = chosen.has(input.value);
  byId("known-types").replaceChildren(...names.map((name) => element("option", { value: name })));
}

/** Loads files one after the other, each in a transaction of its own. */
export function load(files) {
  const type = byId("load-type").value.trim();
  const parts = [...(byId("load-form-of").value === "fhir" ? ["fhir"] : []), ...(type ? [type] : []), "$load"];
  const url = address(parts, { on_error: byId("skip-bad").checked ? "skip" : null });
  for (const file of files) {
    const bar = element("progress", { max: Math.max(1, file.size), value: 0, "aria-label": `Loading ${visible(file.name)}` });
    const state = element("p", { class: "state" }, "waits");
    const item = element("li", { class: "upload" }, element("p", { class: "head" }, element("bdi", { class: "url" }, file.name), " ", bytes(file.size)), bar, state);
    const loading = { file, url, bar, state };
    const stop = element("button", { type: "button", class: "quiet", "aria-label": `Stop loading ${visible(file.name)}`, onclick: () => stopped(loading) }, "Stop");
    Object.assign(loading, { stop });
    item.append(stop);
    byId("uploads").prepend(item);
    queue.push(loading);
  }
  const listed = [...byId("uploads").children].filter((item) => item.dataset.over);
  for (const item of listed.slice(LISTED)) item.remove();
  if (!running) next();
}

function stopped(loading) {
  const at = queue.indexOf(loading);
  if (at < 0) return running?.loading === loading && running.abort();
  queue.splice(at, 1);
  over(loading, "You have broken it off. Nothing was stored.", true);
}

async function next() {
  const loading = queue.shift();
  if (!loading) return;
  const mine = era;
  setText(loading.state, "is sent …");
  const { answer, abort } = upload(loading.url, loading.file, (sent) => {
    loading.bar.value = sent;
    if (sent >= loading.file.size) setText(loading.state, "is stored …");
  });
  running = { loading, abort };
  try {
    const { errors = 0, ...counts } = await answer;
    const stored = Object.entries(counts).map(([name, count]) => (name === "total" ? counted(count, "resource") : `${number(count)} ${name}`));
    over(loading, stored.join(", ") || "nothing in it", false);
    if (errors > 0) loading.state.append("; ", element("a", { href: "#rejects" }, `${counted(errors, "line")} refused`));
  } catch (problem) {
    over(loading, problem.message, true);
  }
  running = null;
  if (mine === era || queue.length > 0) next();
}

function over({ bar, state, stop, file }, text, isBad) {
  bar.hidden = true;
  stop.remove();
  state.classList.toggle("error", isBad);
  state.replaceChildren(marked(text));
  state.parentElement && (state.parentElement.dataset.over = "yes");
  say(`${file.name}: ${text}`);
}

byId("files").addEventListener("change", () => {
  load(byId("files").files);
  byId("files").value = "";
});

/** Files may be dropped anywhere on the page, while somebody is signed in. */
export function takeDrops(isSignedIn) {
  let depth = 0;
  const isOfFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0 && isSignedIn());
  };
  addEventListener("dragenter", (event) => isOfFiles(event) && mark(1));
  addEventListener("dragleave", (event) => isOfFiles(event) && mark(-1));
  addEventListener("dragover", (event) => isOfFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!isOfFiles(event)) return;
    // Otherwise the browser would leave the page for the file.
    event.preventDefault();
    mark(-depth);
    if (!isSignedIn()) return;
    location.hash = "#import";
    load(event.dataTransfer.files);
  });
}
