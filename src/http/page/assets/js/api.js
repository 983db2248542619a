// The JSON API. Every failure is a `Failure` with words for people.

import { has, t } from './i18n.js';

const PATIENCE = 15_000;

/** An answer that is none, or not the one wanted. `status` is 0 if there was no answer at all. */
export class Failure extends Error {
  constructor(status, problem) {
    super(problem?.title ?? `status ${status}`);
    this.status = status;
    this.detail = typeof problem?.detail === 'string' ? problem.detail : null;
  }

  /** What happened, in the viewer's language. */
  get sentence() {
    return t(has(`failure.${this.status}`) ? `failure.${this.status}` : 'failure.other', { status: this.status });
  }
}

let whenEnded = () => {};

/** Calls `then` when the session has ended: the token changed, or twelve hours are over. */
export function onSessionEnd(then) {
  whenEnded = then;
}

/** `GET /api/v1/{path}`, below the path that the page is at; parameters without a value are left out. */
export function get(path, parameters = {}, signal = undefined) {
  return ask(address(path, parameters), { headers: { Accept: 'application/json' } }, signal);
}

/** `POST /api/v1/{path}` with a body of JSON. */
export function post(path, body, signal = undefined) {
  const headers = { Accept: 'application/json', 'Content-Type': 'application/json' };
  return ask(`api/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) }, signal);
}

/** The address of a question, for a link. */
export function address(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== ''));
  return `api/v1/${path}${query.size ? `?${query}` : ''}`;
}

async function ask(url, request, signal) {
  const timeout = AbortSignal.timeout(PATIENCE);
  let response;
  try {
    response = await fetch(url, { ...request, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  } catch (error) {
    if (signal?.aborted) throw error; // The view is gone; nobody wants to know.
    throw new Failure(0, null);
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    if (signal?.aborted) throw new DOMException('aborted', 'AbortError');
    if (response.ok) throw new Failure(0, null); // Cut off within.
  }
  if (response.status === 401) whenEnded();
  if (!response.ok) throw new Failure(response.status, body);
  return body;
}

/** A path of parts that may hold anything. */
export function path(...parts) {
  return parts.map(encodeURIComponent).join('/');
}
