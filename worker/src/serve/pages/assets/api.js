// Asks the API: with the token in a header, and never for what didn't change.
//
// Each answer is kept with its tag, and asked for again with `If-None-Match`: an answer 304 has no body. The browser's own
// cache is left out, so that no answer stays on a disk.

import { parse } from "./format.js";
import { token } from "./session.js";

/** How long an answer may take, in ms. */
const PATIENCE_MS = 20_000;
/** Time between two polls, and the longest wait after errors, in ms. */
const POLL_MS = 5_000;
const LONGEST_WAIT_MS = 60_000;
/** Answers that are kept at most; those that weren't asked for the longest go first. */
const KEPT = 200;

/** The API refuses the token, or wants one. */
export class SignedOut extends Error {}

/** The API can't be reached, or fails. */
export class Unreachable extends Error {}

/** The API answered with another status than 200. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answers of one user. */
export class Api {
  #kept = new Map();
  /** By how much the server's clock is ahead of this one, in ms. */
  #ahead = 0;

  /** Returns the time by the server's clock, in ms. */
  now() {
    return Date.now() + this.#ahead;
  }

  /** Asks for a path; returns its data, whether they are new, and the tick of the answer if it says it. */
  async get(path) {
    const kept = this.#kept.get(path);
    const headers = { Accept: "application/json" };
    if (token()) headers["X-Keytide-Token"] = token();
    if (kept?.tag) headers["If-None-Match"] = kept.tag;
    let response;
    let text;
    try {
      response = await fetch(path, {
        headers, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      text = await response.text();
    } catch (error) {
      throw new Unreachable(error.message);
    }
    const date = Date.parse(response.headers.get("Date"));
    // The header has whole seconds: half a one is the mean of what it leaves out.
    if (Number.isFinite(date)) this.#ahead = date + 500 - Date.now();
    const tick = tickOf(response.headers.get("X-Keytide-Tick"));
    if (response.status === 304 && kept) return { data: this.#keep(path, kept).data, isNew: false, tick };
    if (response.status === 401) throw new SignedOut();
    if (response.status >= 500) throw new Unreachable(`status ${response.status}`);
    let data;
    try {
      data = parse(text);
    } catch {
      // A proxy in between may answer with pages of its own.
      throw new Unreachable("the answer is no JSON");
    }
    if (response.status !== 200) throw new Refused(response.status, data?.error ?? "");
    this.#keep(path, { tag: response.headers.get("ETag"), data });
    return { data, isNew: true, tick };
  }

  /** Forgets all answers. */
  forget() {
    this.#kept.clear();
  }

  #keep(path, answer) {
    this.#kept.delete(path);
    this.#kept.set(path, answer);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= KEPT) break;
      this.#kept.delete(oldest);
    }
    return answer;
  }
}

/** Reads a tick as ms: a header may have it as a time or as ms. */
export function tickOf(text) {
  if (!text) return null;
  const ms = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  return Number.isFinite(ms) ? ms : null;
}

/** Returns the wait after so many failures in a row, in ms. */
export const waitAfter = (failures) => Math.min(POLL_MS * 2 ** failures, LONGEST_WAIT_MS);

/**
 * Calls a function again and again while the page is seen.
 *
 * One call ends before the next begins. After failures the waits grow. A page that is hidden asks nothing, and asks at once
 * when it is seen again.
 */
export class Poll {
  #ask;
  #failed;
  #timer = null;
  #failures = 0;
  #isAsking = false;
  #isWanted = false;
  #isEnded = false;

  /** `ask` returns whether it had its answer; `failed` is told the wait after each failure, in ms. */
  constructor(ask, failed) {
    this.#ask = ask;
    this.#failed = failed;
    document.addEventListener("visibilitychange", this.#seen);
  }

  /** Asks now, or once the running question is answered. */
  async now() {
    clearTimeout(this.#timer);
    if (this.#isAsking) {
      this.#isWanted = true;
      return;
    }
    this.#isAsking = true;
    this.#isWanted = false;
    const isFine = await this.#ask();
    this.#isAsking = false;
    if (this.#isEnded) return;
    this.#failures = isFine ? 0 : this.#failures + 1;
    const wait = waitAfter(this.#failures);
    if (!isFine) this.#failed(wait);
    if (this.#isWanted) this.now();
    else if (!document.hidden) this.#timer = setTimeout(() => this.now(), wait);
  }

  /** Ends the poll for good. */
  end() {
    this.#isEnded = true;
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#seen);
  }

  #seen = () => {
    if (document.hidden) clearTimeout(this.#timer);
    else this.now();
  };
}
