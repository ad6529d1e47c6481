// The list of jobs, which is polled, and one job of it that is open.

import { Problem, address, ask, get } from "./api.js";
import { Curve } from "./curve.js";
import { Pages, byId, bytes, counted, element, isSure, marked, number, say, setText, span, time, visible } from "./show.js";

/** Milliseconds between polls while something runs, while nothing does, and at most after some that failed. */
const BUSY = 2_000;
const IDLE = 15_000;
const LONGEST = 30_000;
const ON_A_PAGE = 20;
const INPUTS = 25;

const WORDS = {
  waiting: "waiting",
  active: "running",
  finished: "finished",
  failed: "failed",
  cancelled: "cancelled",
};

const pages = new Pages("jobs", wake);
/** The rows of the page that is shown, by what names their jobs. */
const rows = new Map();
let open = null;
/** The timer of the next poll; whether there is a poll now; whether another one is wanted after it. */
let timer = null;
let isAsking = false;
let isWanted = false;
let failures = 0;
/** How many rows have been made: each has an id of its own. */
let made = 0;
let isStopped = true;
/** Counts the readers: what one has asked for is not shown to the next. */
let era = 0;
let went = () => {};

/** Begins to poll. `told` is told after each poll, with what went wrong or `null`. */
export function startJobs(told) {
  went = told;
  isStopped = false;
  failures = 0;
  wake();
}

/** Ends it, and forgets what was shown. */
export function stopJobs() {
  isStopped = true;
  era += 1;
  clearTimeout(timer);
  open = null;
  pages.reset();
  for (const row of rows.values()) row.remove();
  rows.clear();
  byId("state").value = "";
}

/** Polls now, never twice at a time. */
export function wake() {
  clearTimeout(timer);
  if (isStopped) return;
  if (isAsking) isWanted = true;
  else poll();
}

/** Shows a job that was just started. */
export function openJob(kind, id) {
  open = { kind, id, curve: new Curve(), from: null, failedOnly: false };
  byId("state").value = "";
  pages.reset();
  location.hash = "#jobs";
  wake();
}

byId("state").addEventListener("change", () => {
  pages.reset();
  wake();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") wake();
});

async function poll() {
  // A page that nobody sees asks for nothing.
  if (document.visibilityState === "hidden") return;
  isAsking = true;
  isWanted = false;
  const mine = era;
  const { problem, runs } = await refresh(mine);
  isAsking = false;
  if (mine !== era) {
    // Its reader has signed out meanwhile. Perhaps another one has signed in.
    wake();
    return;
  }
  failures = problem ? failures + 1 : 0;
  went(problem);
  if (isStopped) return;
  const pause = problem ? Math.min(LONGEST, 500 * 2 ** Math.min(failures, 10)) : runs ? BUSY : IDLE;
  timer = setTimeout(wake, isWanted ? 0 : pause);
}

/** Asks for the page of the list, and the open job on it. Whatever goes wrong, the next poll tries again. */
async function refresh(mine) {
  try {
    const page = await get(["jobs"], { limit: ON_A_PAGE, status: byId("state").value, after: pages.start });
    if (mine !== era) return {};
    pages.linked(page);
    list(page.jobs);
    await refreshOpen(mine);
    return { problem: null, runs: page.jobs.some(isRunning) };
  } catch (error) {
    if (error instanceof Problem) return { problem: error };
    console.error(error);
    return { problem: new Problem(0, `This page has failed: ${error.message}`) };
  }
}

function isRunning(job) {
  return job.status === "waiting" || job.status === "active";
}

function key(job) {
  return JSON.stringify([job.kind, job.id, job.subject ?? null]);
}

function isOpen(job) {
  return open !== null && open.kind === job.kind && open.id === job.id;
}

/** Shows jobs in their order: rows that are there already are changed, and stay where they are. */
function list(jobs) {
  const shown = byId("job-list");
  const kept = new Set(jobs.map(key));
  for (const [name, row] of rows) {
    if (kept.has(name)) continue;
    row.remove();
    rows.delete(name);
  }
  jobs.forEach((job, at) => {
    const row = rows.get(key(job)) ?? new Row(job);
    rows.set(key(job), row);
    if (shown.children[at] !== row.item) shown.insertBefore(row.item, shown.children[at] ?? null);
    row.show(job);
  });
  byId("no-jobs").hidden = jobs.length > 0;
}

/** Asks for the open job, if it is on the page. */
async function refreshOpen(mine) {
  const row = [...rows.values()].find((row) => isOpen(row.job));
  if (!row) return;
  const asked = open;
  // What has ended stays as it is, until another page of its inputs is wanted.
  if (asked.ended && asked.shownFrom === asked.from && asked.shownFailed === asked.failedOnly) return;
  try {
    const parameters = { kind: asked.kind, limit: INPUTS, after: asked.from, status: asked.failedOnly ? "failed" : null };
    const job = await get(["jobs", asked.id], parameters);
    if (open !== asked || mine !== era) return;
    Object.assign(asked, { ended: !isRunning(job), shownFrom: asked.from, shownFailed: asked.failedOnly });
    row.detail(job);
  } catch (error) {
    // Others ask for the same job, or it has just gone.
    if (!(error instanceof Problem) || ![404, 429].includes(error.status)) throw error;
  }
}

class Row {
  constructor(job) {
    made += 1;
    this.id = `job-${made}`;
    this.badge = element("span", { class: "badge" });
    this.bar = element("progress", { max: 1, "aria-label": `Progress of ${job.kind} ${visible(job.id)}` });
    this.count = element("span", { class: "count" });
    this.rate = element("span", { class: "rate" });
    this.left = element("span", { class: "left" });
    this.end = element("button", { type: "button", class: "quiet end", onclick: () => this.#end() });
    this.more = element("div", { class: "more", id: this.id, hidden: "" });
    this.name = element("button", { type: "button", class: "name", "aria-expanded": "false", "aria-controls": this.id, onclick: () => this.#toggle() });
    this.name.append(element("span", { class: "kind" }, job.kind), " ", element("bdi", {}, job.id));
    this.item = element("li", { class: "card job" },
      element("div", { class: "head" }, element("h3", {}, this.name), this.badge, this.bar, this.count, this.rate, this.left, this.end),
      this.more);
    this.job = job;
  }

  show(job) {
    const before = this.job.status;
    this.job = job;
    this.item.dataset.status = job.status;
    const failed = job.status === "finished" && job.inputsFailed > 0 ? `, ${number(job.inputsFailed)} failed` : "";
    setText(this.badge, WORDS[job.status] + failed);
    this.badge.dataset.status = failed ? "failed" : job.status;
    if (before !== job.status) say(`${job.kind} ${job.id} is ${WORDS[job.status]}${failed}`);
    if (!isOpen(job) || !isRunning(job)) this.#figures(job.progress, job.resources, job.resourcesPerSecond, job.secondsLeft);
    const verb = isRunning(job) ? "Cancel" : job.kind === "export" && job.status === "finished" ? "Remove" : null;
    this.end.hidden = verb === null || job.kind === "submission";
    setText(this.end, verb ?? "");
    this.end.setAttribute("aria-label", `${verb ?? "Nothing to do for"} ${job.kind} ${visible(job.id)}`);
    const shows = isOpen(job);
    if (this.more.hidden === shows) {
      this.more.hidden = !shows;
      this.name.setAttribute("aria-expanded", String(shows));
      this.more.replaceChildren();
      this.details = null;
    }
  }

  #figures(progress, resources, rate, left) {
    const isKnown = !isRunning(this.job) || progress > 0;
    if (isKnown) this.bar.value = isRunning(this.job) ? progress : 1;
    else this.bar.removeAttribute("value");
    setText(this.count, counted(resources, "resource"));
    const runs = isRunning(this.job);
    setText(this.rate, runs && rate !== undefined ? `${number(Math.round(rate))}/s` : "");
    setText(this.left, runs && left !== undefined && Number.isFinite(left) ? `${span(left)} left` : "");
  }

  /** Shows what `/jobs/{id}` has. */
  detail(job) {
    const { report = {} } = job;
    const curve = open.curve;
    if (isRunning(job)) {
      const { resources = job.resources, rows: of = resources, bytesRead, bytesTotal, resourcesPerSecond } = report.progress ?? {};
      curve.add(of, bytesRead);
      const share = bytesTotal > 0 ? Math.min(1, bytesRead / bytesTotal) : job.progress;
      const left = bytesTotal > bytesRead && curve.bytesASecond > 0 ? (bytesTotal - bytesRead) / curve.bytesASecond : job.secondsLeft;
      this.#figures(share, of, curve.rate ?? resourcesPerSecond, curve.rate === 0 ? undefined : left);
    }
    if (this.details?.of !== open) {
      this.details = new Details(job.kind);
      this.more.replaceChildren(this.details.all);
    }
    this.details.show(job, report);
  }

  async #end() {
    const { kind, id } = this.job;
    const verb = isRunning(this.job) ? "Cancel" : "Remove";
    const what = verb === "Cancel" ? `Cancel ${kind} ${id}?` : `Remove the files of export ${id}?`;
    const stays = kind === "import" ? " What it has committed stays." : "";
    if (!(await isSure(what + stays, verb))) return;
    const url = kind === "import" ? address(["BulkImportStatus", id]) : address(["fhir", "$export-status", id]);
    try {
      await ask("DELETE", url);
      say(`${kind} ${id} is ${verb === "Cancel" ? "cancelled" : "removed"}`);
      if (isOpen(this.job)) open.ended = false;
    } catch (error) {
      say(error.message);
      this.#complain(error.message);
    }
    wake();
  }

  #complain(text) {
    this.item.querySelector(":scope > .error")?.remove();
    this.item.append(element("p", { class: "error" }, marked(text)));
  }

  #toggle() {
    const { kind, id } = this.job;
    open = isOpen(this.job) ? null : { kind, id, curve: new Curve(), from: null, failedOnly: false };
    for (const row of rows.values()) row.show(row.job);
    wake();
  }

  remove() {
    this.item.remove();
  }
}

function readOf({ bytesRead, bytesTotal }) {
  return bytesTotal === undefined ? bytes(bytesRead) : `${bytes(bytesRead)} of ${bytes(bytesTotal)}`;
}

function turn(change) {
  Object.assign(open, change);
  wake();
}

/** What is shown of the open job, made once: a poll takes nothing from under the reader's hand. */
class Details {
  constructor(kind) {
    this.of = open;
    this.facts = element("dl");
    this.error = element("p", { class: "error" });
    this.written = element("div");
    this.title = element("h4");
    this.rows = element("tbody");
    this.box = element("input", { type: "checkbox", class: "failed-only", onchange: () => turn({ failedOnly: this.box.checked, from: null }) });
    this.first = element("button", { type: "button", onclick: () => turn({ from: null }) }, "First");
    this.next = element("button", { type: "button", onclick: () => turn({ from: this.after }) }, "Next");
    this.pages = element("p", { class: "pages" }, this.first, this.next);
    const heads = [["Input"], ["Type"], ["State"], ["Resources", "number"], ["Size", "number"]];
    const head = element("tr", {}, ...heads.map(([text, of]) => element("th", { scope: "col", class: of ?? null }, text)));
    const inputs = element("div", {},
      element("div", { class: "bar" }, this.title, element("label", { class: "check" }, this.box, " only those that failed")),
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Inputs" }, element("table", {}, element("thead", {}, head), this.rows)),
      this.pages);
    this.all = element("div", {}, this.facts, open.curve.drawn, this.error, kind === "import" ? inputs : null, this.written);
  }

  show(job, report) {
    const facts = [
      ["Started", job.started ? time(job.started) : "not yet"],
      ["Ended", job.ended ? time(job.ended) : null],
      ["For", job.subject],
      ["Form", job.kind === "import" ? report.type : null],
      ["Read", report.progress?.bytesRead === undefined ? null : readOf(report.progress)],
      ["Unchanged", job.unchanged > 0 ? number(job.unchanged) : null],
    ].filter(([, value]) => value);
    this.facts.replaceChildren(...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    // Where there was a curve it stays when the job has ended, so that nothing moves.
    this.hasCurve ??= isRunning(job);
    this.of.curve.drawn.toggleAttribute("hidden", !this.hasCurve);
    this.error.replaceChildren(marked(typeof report.error === "string" ? report.error : ""));
    if (job.kind === "export") this.#changed("written", report, () => [files(report)]);
    if (!job.inputs) return;
    setText(this.title, counted(job.inputsTotal, "input") + (job.inputsFailed > 0 ? `, ${number(job.inputsFailed)} failed` : ""));
    this.#changed("rows", job.inputs, () => job.inputs.map(input));
    const link = job.link?.[0]?.url;
    this.after = link ? new URL(link, document.baseURI).searchParams.get("after") : null;
    this.next.hidden = this.after === null;
    this.first.hidden = this.of.from === null;
    this.pages.hidden = this.next.hidden && this.first.hidden;
  }

  /** Shows a part anew if what it shows has changed. */
  #changed(part, value, made) {
    const text = JSON.stringify(value);
    if (this[`${part}Shown`] === text) return;
    this[`${part}Shown`] = text;
    this[part].replaceChildren(...made());
  }
}

function input({ url, resourceType, status, total, bytesRead, bytesTotal, error }) {
  return element("tr", {},
    element("td", {}, element("bdi", { class: "url" }, marked(url)), error ? element("p", { class: "error" }, marked(error)) : null),
    element("td", {}, resourceType ?? "any"),
    element("td", {}, WORDS[status] ?? status),
    element("td", { class: "number" }, number(total)),
    element("td", { class: "number" }, bytes(bytesTotal ?? (bytesRead || undefined))));
}

/** What an export has written, with its links. They are signed, and need no credentials. */
function files(report) {
  const of = [["output", ""], ["deleted", "deletions"], ["error", "notes"]];
  const found = of.flatMap(([member, what]) => (Array.isArray(report[member]) ? report[member] : []).map((file) => ({ ...file, what })));
  if (report.downloadUrl) found.push({ url: report.downloadUrl, count: report.count, type: "all types", what: "" });
  if (found.length === 0) {
    return element("p", { class: "empty" }, report.status === "completed" ? "There was nothing to write." : "");
  }
  return element("ul", { class: "plain files" }, ...found.map((file) => element("li", {}, link(file), " ", counted(file.count, "line"))));
}

function link({ url, type, name, what }) {
  const to = new URL(url, document.baseURI);
  const last = decodeURIComponent(to.pathname.split("/").at(-1));
  const text = [last, what || (last.startsWith(type ?? name ?? "") ? "" : (type ?? name))].filter(Boolean).join(", ");
  // Nothing but the web's addresses; whoever wrote the manifest could have written another one.
  if (!["http:", "https:"].includes(to.protocol)) return element("span", {}, text);
  return element("a", { href: to.href, download: visible(last) }, text);
}
