// Requests to where the page is from. The credentials of its reader are kept here, in memory, and nowhere else.

let credentials = null;
const base = new URL(".", document.baseURI);

/** What went wrong: the status of the answer, 0 if there was none, and a text for people. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Takes credentials of a kind: `basic`, `bearer` or `key`. */
export function signIn(kind, user, secret) {
  const basic = () => btoa(String.fromCharCode(...new TextEncoder().encode(`${user}:${secret}`)));
  credentials = {
    basic: () => ["Authorization", `Basic ${basic()}`],
    bearer: () => ["Authorization", `Bearer ${secret}`],
    key: () => ["X-Api-Key", secret],
  }[kind]();
}

export function signOut() {
  credentials = null;
}

/** The address of a path, whose parts may have any characters. */
export function address(parts, parameters = {}) {
  const url = new URL(parts.map(encodeURIComponent).join("/").replaceAll("%24", "$"), base);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/**
 * Sends a request; the answer as JSON, `null` if it has no body, with its address in `location` if it started a job.
 * A browser's own credentials are never asked for, and cookies never sent.
 */
export async function ask(method, url, { body = null, headers = {}, patience = 0 } = {}) {
  const request = { method, body, headers: new Headers(headers), cache: "no-store", credentials: "omit", redirect: "error" };
  if (patience > 0) request.signal = AbortSignal.timeout(patience);
  let response, text;
  try {
    if (credentials) request.headers.set(...credentials);
    response = await fetch(url, request);
    text = await response.text();
  } catch (error) {
    if (error.name === "TimeoutError") throw new Problem(0, "The proxy does not answer in time.");
    throw new Problem(0, "The proxy does not answer.");
  }
  if (!response.ok) throw new Problem(response.status, reason(text) ?? `The proxy answers ${response.status}.`);
  return { answer: parsed(text), location: response.headers.get("Content-Location") };
}

/** The answer to a GET request. */
export async function get(parts, parameters, patience = 20_000) {
  return (await ask("GET", address(parts, parameters), { patience })).answer;
}

/**
 * Sends a file as it is, piece by piece from the disk; `sending` is told how many bytes have been sent. The answer, and a
 * function that breaks off.
 */
export function upload(url, file, sending) {
  // The one thing that fetch does not tell is how much of a body it has sent.
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.open("POST", url);
    request.setRequestHeader("Content-Type", "application/ndjson");
    if (credentials) request.setRequestHeader(...credentials);
    request.upload.onprogress = (event) => sending(event.loaded);
    request.onload = () => {
      if (request.status === 200) return resolve(parsed(request.responseText));
      reject(new Problem(request.status, reason(request.responseText) ?? `The proxy answers ${request.status}.`));
    };
    request.onerror = () => reject(new Problem(0, "The connection broke, or the file has changed. Nothing was stored."));
    request.onabort = () => reject(new Problem(0, "You have broken it off. Nothing was stored."));
    request.send(file);
  });
  return { answer, abort: () => request.abort() };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The text of an OperationOutcome. */
function reason(text) {
  return parsed(text)?.issue?.[0]?.diagnostics;
}
