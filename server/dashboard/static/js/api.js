// Calls to this node, and its refusals in words.

import { bearer, renew, token } from "./token.js";

/** A refusal: `message` is for people; `code` and `status` are the problem document's (RFC 9457). */
export class Problem extends Error {
  constructor(message, code, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** GET a JSON document; raises Problem. */
export function get(path, options = {}) {
  return call(path, options);
}

/** POST JSON and read the answer; raises Problem. */
export function post(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { ...options, method: "POST", headers, body: JSON.stringify(body) });
}

/** An address with its query: what is empty is left out. */
export function address(path, params) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== null);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function call(path, options) {
  const given = token();
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...bearer(given) } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The node does not answer. It is asked again shortly.", "unreachable", 0);
  }
  if (response.status === 401) {
    await renew(given);
    return call(path, options);
  }
  const document = await response.json().catch(() => null);
  if (response.ok && document !== null) return document;
  throw problemOf(response, document);
}

const TITLES = {
  bad_pattern: "The pattern cannot be read",
  bad_cursor: "This page of results is gone",
  rate_limited: "The node is busy",
  no_models: "No model could vote",
  no_leader: "There is no leader now",
  not_ready: "The node is starting",
};

function problemOf(response, document) {
  const { code = "error", detail = "", title = response.statusText } = document ?? {};
  const named = TITLES[code] ?? title ?? "The node refused";
  return new Problem(detail ? `${named}: ${detail}` : named, code, response.status);
}
