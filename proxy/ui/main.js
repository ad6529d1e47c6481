// The page as a whole: who reads it, which part of it is shown, and whether the proxy answers.

import { Problem, get, signIn, signOut } from "./api.js";
import { showRejects, showTypes, stopData } from "./data.js";
import { startJobs, stopJobs } from "./jobs.js";
import { byId, say, setText } from "./show.js";
import { stopStarts, takeDrops } from "./start.js";

/** The parts of the page, each with what it asks for when it is shown. */
const PARTS = { jobs: () => {}, import: showTypes, export: showTypes, types: showTypes, rejects: showRejects };
let isSignedIn = false;
let isAway = false;

/** Shows the part that the address names; its title. */
function show() {
  const name = location.hash.slice(1);
  const part = isSignedIn ? (Object.hasOwn(PARTS, name) ? name : "jobs") : "sign-in";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `${part}-part`;
  for (const link of byId("nav").children) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("nav").hidden = !isSignedIn;
  byId("who").hidden = !isSignedIn;
  if (isSignedIn) PARTS[part]();
  return byId(`${part}-title`);
}

addEventListener("hashchange", () => show().focus());

/** Takes who the reader is; the title of what is shown then. Throws a Problem if the proxy does not say so. */
async function enter() {
  const caller = await get(["caller"]);
  isSignedIn = true;
  introduce(caller);
  setHealth(null);
  startJobs(polled);
  return show();
}

function introduce({ role, subject, proxy, extension, postgresql, fhirVersion }) {
  setText(byId("role"), subject ? `${role}, ${subject}` : role);
  const versions = [`proxy ${proxy}`, `extension ${extension}`, `PostgreSQL ${postgresql}`, `FHIR ${fhirVersion}`];
  setText(byId("versions"), versions.join(" · "));
}

function leave(why = "") {
  signOut();
  isSignedIn = false;
  isAway = false;
  stopJobs();
  stopStarts();
  stopData();
  setText(byId("role"), "");
  setText(byId("versions"), "");
  setText(byId("sign-in-error"), why);
  byId("away").hidden = true;
  setText(byId("health"), "");
  // The next reader begins at the beginning.
  history.replaceState(null, "", "#jobs");
  show();
  byId("secret").focus();
}

/** After each poll: whether the proxy answers, or does again. */
async function polled(problem) {
  if (problem?.status === 401) return leave("The proxy takes these credentials no longer.");
  setHealth(problem);
  if (!problem && isAway) {
    isAway = false;
    say("The proxy answers again.");
    get(["caller"]).then(introduce, () => {});
    show();
  }
  isAway = problem !== null;
}

function setHealth(problem) {
  const away = byId("away");
  byId("health").dataset.status = problem ? "bad" : "good";
  setText(byId("health"), problem ? "away" : "answers");
  if (problem) setText(away, `${problem.message} This page tries again.`);
  away.hidden = problem === null;
}

byId("kind").addEventListener("change", () => {
  const kind = byId("kind").value;
  byId("of-role").hidden = kind !== "basic";
  setText(byId("secret-label"), { basic: "Password", bearer: "Token", key: "Key" }[kind]);
});

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [kind, user, secret] = ["kind", "user", "secret"].map((id) => byId(id).value);
  setText(byId("sign-in-error"), "");
  try {
    signIn(kind, user, kind === "basic" ? secret : secret.trim());
    const title = await enter();
    byId("secret").value = "";
    title.focus();
  } catch (error) {
    signOut();
    if (!(error instanceof Problem)) throw error;
    setText(byId("sign-in-error"), error.message);
    byId("secret").focus();
  }
});

byId("sign-out").addEventListener("click", () => leave());
byId("sure-yes").addEventListener("click", () => byId("sure").close("yes"));
byId("sure-no").addEventListener("click", () => byId("sure").close("no"));
takeDrops(() => isSignedIn);

// Some proxies have a role for those without credentials.
try {
  await enter();
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  show();
  if (error.status !== 401) setText(byId("sign-in-error"), error.message);
}
