// What all pages have around their content: the header, the sign-in, the banner, and from which tick the numbers are.
//
// A page is a function that gets the shell and the session, and returns what `draw` and `end` do. It is opened once a token
// is known to be good, and ended as soon as the API refuses it.

import { Api, Refused, SignedOut, Unreachable, tickOf, waitAfter } from "./api.js";
import { foreign, h, update } from "./dom.js";
import { duration, moment, time, zoneName } from "./format.js";
import {
  canBeToken, language, place, setLanguage, setPlace, setTheme, setToken, theme, token,
} from "./session.js";
import { LANGUAGES, loadWords, wordsOf } from "./words.js";

/** The pages, and the roles that may see them. */
const PAGES = [
  { name: "me", path: "/me", roles: ["admin", "ops", "consumer"] },
  { name: "security", path: "/security", roles: ["admin", "ops"] },
];

/** The age of a tick from which on numbers are old, in ms. */
const OLD_MS = 60_000;

/** Returns the pages that a role may see. */
export const pagesOf = (role) => PAGES.filter((page) => page.roles.includes(role));

const element = (id) => document.getElementById(id);

export class Shell {
  api = new Api();
  #name;
  #open;
  #tables;
  #page = null;
  #session = null;
  /** Why the sign-in is shown, as the name of a word; null if it isn't. */
  #signIn = null;
  #error = null;
  #tick = undefined;
  #zone = "UTC";
  /** The wait after a failure, in ms; null while the API answers. */
  #wait = null;
  #retry = null;

  /** `tables` names further words, of this page alone. */
  constructor(name, open, tables = []) {
    this.#name = name;
    this.#open = open;
    this.#tables = tables;
    document.addEventListener("click", (event) => this.#clicked(event));
    document.addEventListener("change", (event) => this.#changed(event));
    document.addEventListener("submit", (event) => this.#submitted(event));
    addEventListener("hashchange", () => {
      // A link with a token was opened in this tab.
      if ("token" in place()) location.reload();
    });
    addEventListener("pageshow", (event) => {
      // A page that the browser kept may be of a user who signed out since.
      if (event.persisted) location.reload();
    });
    loadWords(language(), tables).then(() => {
      setInterval(() => this.#drawAge(), 1_000);
      this.begin();
    });
  }

  get words() {
    return wordsOf(language());
  }

  get language() {
    return language();
  }

  get main() {
    return element("main");
  }

  /** Asks who the user is, and opens the page or the sign-in. */
  async begin() {
    clearTimeout(this.#retry);
    if (token() && !canBeToken(token())) {
      this.signOut("tokenOdd");
      return;
    }
    this.draw();
    try {
      const { data } = await this.api.get("/v1/session");
      this.#wait = null;
      this.#signIn = null;
      this.#session = data;
      this.setTick(tickOf(data.tick));
      this.draw();
      const pages = pagesOf(data.role);
      const isOpen = this.#name === "home" ? pages.length > 0 : pages.some(({ name }) => name === this.#name);
      this.#page = isOpen ? this.#open(this, data) : null;
      this.draw();
    } catch (error) {
      if (error instanceof SignedOut) {
        this.signOut(token() ? "tokenRefused" : null);
      } else if (error instanceof Unreachable) {
        this.failed(waitAfter(1));
        this.#retry = setTimeout(() => this.begin(), waitAfter(1));
      } else {
        throw error;
      }
    }
  }

  /** Forgets the token and all numbers, and shows the sign-in with a reason. */
  signOut(reason) {
    setToken(null);
    this.#page?.end();
    this.#page = null;
    this.#session = null;
    this.#tick = undefined;
    this.#wait = null;
    this.#error = reason;
    this.#signIn = true;
    this.api = new Api();
    this.draw();
    element("token")?.focus();
  }

  /** Says from which tick the numbers are, in which zone. A tick of null is none yet. */
  setTick(tick, zone = this.#zone) {
    this.#tick = tick;
    this.#zone = zone;
    this.#drawAge();
  }

  /** Runs a page's questions; returns whether they were answered. A refused token ends the page. */
  async ask(questions) {
    const { api } = this;
    try {
      await questions();
      this.#wait = null;
      this.#page?.draw();
      return true;
    } catch (error) {
      // The user signed out meanwhile, and another one may have signed in.
      if (api !== this.api) return true;
      if (error instanceof SignedOut) {
        this.signOut("tokenEnded");
        return true;
      }
      // What is refused now was there a moment ago, and is asked for again as well.
      if (error instanceof Unreachable || error instanceof Refused) return false;
      throw error;
    }
  }

  /** Says that no answer came, and how long it takes until it is asked for again. */
  failed(wait) {
    this.#wait = wait;
    this.#drawAge();
  }

  /** Formats a duration in words: 3 min. */
  lasting(ms) {
    const [number, unit] = duration(ms);
    const { units } = this.words;
    return this.language === "ko" ? `${number}${units[unit]}` : `${number} ${units[unit]}`;
  }

  /** Formats how long ago an instant was. */
  ago(ms) {
    const [number, unit] = duration(this.api.now() - ms);
    return this.words.ago(number, this.words.units[unit]);
  }

  /** Draws the header, the footer and what stands between them. */
  draw() {
    const { words } = this;
    element("skip").textContent = words.skip;
    document.title = this.#name === "home" ? "Keytide" : `${words.pageOf[this.#name]} - Keytide`;
    update(element("top"), this.#header());
    update(element("foot"), this.#footer());
    if (this.#signIn) update(this.main, this.#signInForm());
    else if (this.#page) this.#page.draw();
    else if (this.#session) update(this.main, h("h1", {}, "Keytide"), h("p", {}, this.#session.role === "check" ? words.noPages : words.notForYou));
    else update(this.main, h("h1", {}, "Keytide"), h("p", { class: "soft" }, words.waiting));
    this.#drawAge();
  }

  #header() {
    const { words } = this;
    const option = (value, text, chosen) => h("option", { value, selected: value === chosen }, text);
    const pages = this.#session ? pagesOf(this.#session.role) : [];
    return [
      h("a", { class: "brand", href: "/" }, h("span", { class: "mark", "aria-hidden": "true" }), "Keytide"),
      h("nav", { "aria-label": words.pages, hidden: pages.length < 2 },
        pages.map(({ name, path }) =>
          h("a", { href: path, "aria-current": name === this.#name ? "page" : null }, words.pageOf[name]))),
      h("div", { class: "tools" },
        h("select", { "data-set": "language", "aria-label": words.languageLabel },
          Object.entries(LANGUAGES).map(([code, text]) => option(code, text, language()))),
        h("select", { "data-set": "theme", "aria-label": words.theme },
          Object.entries(words.themes).map(([value, text]) => option(value, text, theme()))),
        h("button", { type: "button", "data-do": "sign-out", hidden: !this.#session || !token() }, words.signOut)),
    ];
  }

  #footer() {
    const { words } = this;
    if (!this.#session) return [];
    const { name, role, expires_at: until, version } = this.#session;
    return h("p", {},
      h("span", {}, words.footer(version)), " ",
      h("span", {}, foreign(words.signedIn(name, role))), " ",
      until ? h("span", {}, words.expires(moment(until, this.#zone, this.language, this.api.now()))) : null);
  }

  #signInForm() {
    const { words } = this;
    return h("section", { class: "sign-in card" },
      h("h1", {}, words.signIn),
      h("form", { "data-form": "sign-in", novalidate: true },
        h("label", { for: "token" }, words.token),
        h("input", {
          id: "token", type: "password", autocomplete: "off", spellcheck: "false", autocapitalize: "off",
          "aria-describedby": "token-error token-help", "aria-invalid": this.#error ? "true" : null,
        }),
        h("p", { id: "token-error", class: "error", role: "alert" }, this.#error ? words[this.#error] : ""),
        h("div", { class: "row" },
          h("label", { class: "check" }, h("input", { type: "checkbox", "data-set": "show-token" }), " ", words.showToken),
          h("button", { type: "submit", class: "primary" }, words.signIn))),
      h("p", { id: "token-help", class: "soft" }, words.tokenHelp));
  }

  #clicked(event) {
    const control = event.target.closest("[data-do]");
    if (!control) return;
    const what = control.dataset.do;
    if (what === "skip") {
      event.preventDefault();
      this.main.focus();
    } else if (what === "sign-out") {
      this.signOut("signedOut");
      setPlace({}, true);
    } else {
      this.#page?.act?.(what, control.dataset.value ?? null);
    }
  }

  async #changed(event) {
    const { set } = event.target.dataset;
    if (set === "language") {
      await loadWords(event.target.value, this.#tables);
      setLanguage(event.target.value);
    } else if (set === "theme") setTheme(event.target.value);
    else if (set === "show-token") element("token").type = event.target.checked ? "text" : "password";
    else if (set) this.#page?.act?.(set, event.target.value);
    if (set === "language" || set === "theme") this.draw();
  }

  #submitted(event) {
    event.preventDefault();
    if (event.target.dataset.form !== "sign-in") return;
    const text = element("token").value.trim();
    this.#error = text === "" ? "tokenMissing" : canBeToken(text) ? null : "tokenOdd";
    if (this.#error) {
      this.draw();
      element("token").focus();
      return;
    }
    element("token").value = "";
    setToken(text);
    this.#signIn = null;
    this.begin().then(() => {
      if (!this.#signIn) this.main.focus();
    });
  }

  #drawAge() {
    const { words } = this;
    const isKnown = this.#session !== null && this.#tick !== undefined;
    const asOf = element("as-of");
    const now = this.api.now();
    if (asOf) {
      const zone = zoneName(this.#zone);
      const isRecent = this.#tick !== null && now - this.#tick < 20 * 3_600_000;
      const at = isRecent ? time(this.#tick, zone, true) : this.#tick && moment(this.#tick, zone, this.language, now);
      update(asOf, !isKnown ? "" : this.#tick === null ? words.asOfNothing
        : [words.asOf(at, zone), " ", h("span", { class: "age" }, this.ago(this.#tick))]);
    }
    const isOld = isKnown && this.#tick !== null && now - this.#tick > OLD_MS;
    let text = "";
    if (this.#wait !== null) {
      const wait = this.lasting(this.#wait);
      text = this.#session ? words.unreachable(wait) : words.unreachableFirst(wait);
    } else if (isOld) {
      // In whole minutes, so that it isn't read aloud each second.
      text = words.stale(this.lasting(Math.floor((now - this.#tick) / 60_000) * 60_000));
    } else if (isKnown && this.#tick === null) {
      text = words.noTick;
    }
    document.body.classList.toggle("old", isKnown && (this.#wait !== null || isOld));
    if (element("banner").textContent !== text) element("banner").textContent = text;
  }
}
