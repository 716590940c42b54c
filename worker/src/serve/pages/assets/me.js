// The account of one subscription: quotas, bills, calls, keys, incidents and notices.
//
// One question is asked every five seconds: how the subscription stands. Its answer says in which tick the rows of each view
// changed last, and only those are fetched again. Long lists are fetched once their section is nearly in sight. The page is then
// drawn whole from what is known.
//
//   poll ──► /v1/subscriptions/ID ──► changed? in sight? ──► rows of views, keys, rows of the chosen key ──► draw
//
// The address names the subscription and the key behind `#`, which no server sees.

import { Poll, Refused, tickOf } from "./api.js";
import { billSection, billsSection, runningBill } from "./bill.js";
import { drawCharts } from "./chart.js";
import { chooserSection, searchPath } from "./chooser.js";
import { foreign, h, update } from "./dom.js";
import { day, duration, span } from "./format.js";
import { incidentsSection, openNote } from "./incidents.js";
import { keysSection } from "./keys.js";
import { noticesSection, quotasSection } from "./quotas.js";
import { place, setPlace } from "./session.js";
import { Shell } from "./shell.js";
import { trafficSection } from "./traffic.js";
import { WIDTHS, firstOf } from "./windows.js";

/** Keys of one answer. */
const KEYS = 100;
/** Incidents that are asked for. */
const INCIDENTS = 100;
/** Days of countries. */
const GEO_DAYS = 7;
const DAY_MS = 86_400_000;
/** How old the list of keys may be, in ms: while there are calls, and without, as their states change, too. */
const KEYS_AGE_MS = { calls: 15_000, quiet: 60_000 };
/** The sections that are fetched once they are nearly in sight, and how near that is. */
const WATCHED = ["traffic", "keys", "incidents"];
const NEARLY = "200px";
/** How long a search waits for the next letter, in ms. */
const TYPING_MS = 250;

const NOTHING = { rows: [], since: null };

/** What is known of one subscription. */
class Account {
  standing = null;
  /** Answers by their names, and for which change and path each was asked. */
  #answers = new Map();
  #asked = new Map();
  keyPages = 1;
  /** The keys that were fetched; null before. */
  keys = null;
  #keysAt = -Infinity;
  #keysFor = "";
  #keysUse = "";
  key = null;
  widths = "days";
  keyWidths = "hours";
  /** The start of the period whose bill is shown; null for the running one. */
  bill = null;

  constructor(api, id, isOwn) {
    this.api = api;
    this.id = id;
    this.isOwn = isOwn;
    this.path = `/v1/subscriptions/${encodeURIComponent(id)}`;
  }

  answer(name) {
    return this.#answers.get(name) ?? null;
  }

  rows(name) {
    return this.answer(name)?.rows ?? [];
  }

  /** Asks how the subscription stands, and for the rows that changed, of sections in sight. Returns the tick. */
  async refresh(inSight) {
    const { data, tick } = await this.api.get(this.path);
    const { changed } = data;
    const wanted = (section, fetch) => (inSight.has(section) ? fetch() : null);
    const views = ["charges", "bills", "forecast", "notices", "adjustments"];
    await Promise.all([
      wanted("traffic", () =>
        this.#fetch("usage", this.#usagePath(`${this.path}/usage`, WIDTHS[this.widths].usage), changed.usage, this.widths)),
      ...views.map((view) => this.#fetch(view, `${this.path}/${view}`, changed[view])),
      // Operators get those of all customers, with all evidence.
      (this.isOwn || inSight.has("incidents")) &&
        this.#fetch("incidents", `/v1/incidents?limit=${INCIDENTS}`, changed.incidents),
      (inSight.has("keys") || inSight.has("incidents")) && this.#refreshKeys(data, inSight.has("keys")),
    ]);
    // Only now, so that what is drawn is of one moment.
    this.standing = data;
    return tick ?? tickOf(data.tick);
  }

  async #refreshKeys({ keys, changed }, isDetailed) {
    const wanted = JSON.stringify([keys, changed.incidents, this.keyPages]);
    const age = Date.now() - this.#keysAt;
    if (wanted !== this.#keysFor || age > (changed.usage === this.#keysUse ? KEYS_AGE_MS.quiet : KEYS_AGE_MS.calls)) {
      let [rows, after] = [[], null];
      for (let page = 0; page < this.keyPages && (page === 0 || after !== null); page += 1) {
        const query = new URLSearchParams({ limit: String(KEYS), ...(after === null ? {} : { after }) });
        const { data } = await this.api.get(`${this.path}/keys?${query}`);
        rows = [...rows, ...data.rows];
        after = data.next;
      }
      this.keys = { rows, isMore: after !== null };
      [this.#keysFor, this.#keysUse, this.#keysAt] = [wanted, changed.usage, Date.now()];
    }
    if (!isDetailed) return;
    const key = this.keys.rows.find((row) => row.key_id === this.chosenKey());
    if (!key) return;
    const path = `/v1/keys/${encodeURIComponent(key.key_id)}`;
    const widths = WIDTHS[this.keyWidths];
    const from = new Date(firstOf(this.api.now(), DAY_MS, GEO_DAYS)).toISOString();
    await Promise.all([
      this.#fetch("key-usage", this.#usagePath(`${path}/usage`, widths.usage), key.changed.usage, this.keyWidths),
      this.#fetch("key-latency", `${path}/latency?window=${widths.latency}`, key.changed.latency, this.keyWidths),
      this.#fetch("key-geo", `${path}/geo?${new URLSearchParams({ window: "1d", from })}`, key.changed.geo),
    ]);
  }

  /** The key that is shown: the chosen one, else the one that was used last. */
  chosenKey() {
    const rows = this.keys?.rows ?? [];
    if (rows.some((row) => row.key_id === this.key)) return this.key;
    const used = (row) => (row.last_used_at === null ? -Infinity : Date.parse(row.last_used_at));
    return rows.toSorted((a, b) => used(b) - used(a))[0]?.key_id ?? null;
  }

  #usagePath(path, window) {
    if (window !== "1d") return `${path}?window=${window}`;
    const from = new Date(firstOf(this.api.now(), DAY_MS, WIDTHS.days.usageCount)).toISOString();
    return `${path}?${new URLSearchParams({ window, from })}`;
  }

  /** Fetches rows if they changed since they were fetched, or others are wanted; `widths` names their windows. */
  async #fetch(name, path, changed, widths = null) {
    const wanted = `${changed} ${path}`;
    if (this.#asked.get(name) === wanted) return;
    const answer = changed === null ? NOTHING : (await this.api.get(path)).data;
    this.#answers.set(name, { rows: answer.rows, since: tickOf(answer.since), widths });
    this.#asked.set(name, wanted);
  }
}

class Page {
  #shell;
  #session;
  #account = null;
  #poll;
  #tick = undefined;
  /** The choice of a subscription; `isOpen` is true while it is shown. */
  #choice = { text: "", found: null, pages: 1, isOpen: false, isGone: false, isSearched: false };
  #typing = null;
  #searches = 0;
  #inSight = new Set();
  #sight = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: NEARLY });

  constructor(shell, session) {
    this.#shell = shell;
    this.#session = session;
    this.#choice.isSearched = session.customer === null;
    this.#poll = new Poll(() => this.#ask(), (wait) => shell.failed(wait));
    addEventListener("popstate", this.#moved);
    shell.main.addEventListener("input", this.#typed);
    const { subscription } = place();
    if (subscription !== undefined) this.#choose(subscription);
    else this.#search();
    this.#poll.now();
  }

  end() {
    this.#poll.end();
    this.#sight.disconnect();
    clearTimeout(this.#typing);
    removeEventListener("popstate", this.#moved);
    this.#shell.main.removeEventListener("input", this.#typed);
  }

  act(what, value) {
    const account = this.#account;
    if (what === "choose") {
      setPlace({ subscription: value });
      this.#choose(value);
      this.#shell.main.focus();
      this.#poll.now();
    } else if (what === "other") {
      this.#choice.isOpen = !this.#choice.isOpen;
      if (this.#choice.isOpen && !this.#choice.found) this.#search();
      this.draw();
      if (this.#choice.isOpen) document.getElementById("search")?.focus();
    } else if (what === "more-found") {
      this.#choice.pages += 1;
      this.#search();
    } else if (what === "to-incidents") {
      const heading = document.getElementById("of-incidents");
      heading.scrollIntoView();
      heading.setAttribute("tabindex", "-1");
      heading.focus({ preventScroll: true });
    } else if (account) {
      if (what === "windows") account.widths = value;
      else if (what === "key-windows") account.keyWidths = value;
      else if (what === "show-bill") account.bill = value;
      else if (what === "more-keys") account.keyPages += 1;
      else if (what === "key") {
        account.key = value;
        setPlace({ subscription: account.id, key: value }, true);
      } else return;
      if (what === "show-bill") this.draw();
      else this.#poll.now();
    }
  }

  #moved = () => {
    const { subscription, key } = place();
    if (subscription === undefined || subscription === this.#account?.id) {
      if (this.#account) this.#account.key = key ?? null;
    } else {
      this.#choose(subscription);
    }
    this.#poll.now();
  };

  #seen(entries) {
    const before = this.#inSight.size;
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#inSight.add(target.dataset.key);
      else this.#inSight.delete(target.dataset.key);
    }
    if (this.#inSight.size > before) this.#poll.now();
  }

  #typed = (event) => {
    if (event.target.id !== "search") return;
    this.#choice.text = event.target.value.trim();
    this.#choice.pages = 1;
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#search(), TYPING_MS);
  };

  #choose(id) {
    this.#account = new Account(this.#shell.api, id, this.#session.customer !== null);
    this.#account.key = place().key ?? null;
    this.#choice.isOpen = false;
    this.#choice.isGone = false;
    this.draw();
  }

  async #search() {
    const choice = this.#choice;
    this.#searches += 1;
    const search = this.#searches;
    await this.#shell.ask(async () => {
      let [rows, next] = [[], null];
      for (let page = 0; page < choice.pages && (page === 0 || next !== null); page += 1) {
        const { data } = await this.#shell.api.get(searchPath(choice.text, next));
        rows = [...rows, ...data.rows];
        next = data.next;
      }
      // An older search may be answered after a newer one.
      if (search !== this.#searches) return;
      choice.found = { rows, next };
      if (next !== null) choice.isSearched = true;
      if (choice.text === "" && next === null && rows.length === 1 && !this.#account && !choice.isGone) {
        this.#choose(rows[0].subscription);
        this.#poll.now();
      }
    });
    this.draw();
  }

  /** Asks once for all that changed; returns whether there was an answer. */
  async #ask() {
    const account = this.#account;
    return this.#shell.ask(async () => {
      if (!account) {
        this.#tick = tickOf((await this.#shell.api.get("/v1/session")).data.tick);
        this.#shell.setTick(this.#tick);
        if (!this.#choice.found) this.#search();
        return;
      }
      try {
        const tick = await account.refresh(this.#inSight);
        if (account !== this.#account) return;
        this.#tick = tick;
        this.#shell.setTick(tick, account.standing.time_zone ?? "UTC");
      } catch (error) {
        if (!(error instanceof Refused) || account !== this.#account) throw error;
        // It is gone, or another customer's now.
        this.#account = null;
        this.#choice.isGone = true;
        this.#choice.found = null;
        setPlace({}, true);
        this.#search();
      }
    });
  }

  #view() {
    const { words, language, api } = this.#shell;
    const { standing } = this.#account;
    const zone = standing.time_zone ?? "UTC";
    const now = api.now();
    const bills = this.#account.rows("bills");
    return {
      words, language, zone, now, tick: this.#tick,
      /** How long it takes until an instant. */
      until: (at) => {
        const [number, unit] = duration(Date.parse(at) - now);
        return words.within(number, words.units[unit]);
      },
      /** The period that begins at an instant, as far as it is known. */
      periodOf: (start) => {
        const bill = bills.find((row) => Date.parse(row.period_start) === Date.parse(start));
        return bill ? span(bill.period_start, bill.period_end, zone, language, now) : day(start, zone, language, now);
      },
    };
  }

  draw() {
    const { main, words } = this.#shell;
    const account = this.#account;
    const choice = this.#choice;
    const isChooser = !account || choice.isOpen;
    const chooser = isChooser &&
      chooserSection(this.#shell, { ...choice, chosen: account?.id ?? null });
    if (!account) {
      update(main,
        h("div", { class: "head", "data-key": "head" }, h("h1", {}, words.pageOf.me), h("p", { id: "as-of", class: "as-of" })),
        choice.isGone && h("p", { class: "callout", role: "alert" }, words.gone), chooser);
    } else {
      update(main, this.#head(account), chooser, account.standing ? this.#sections(account) : h("p", { class: "empty" }, words.waiting));
    }
    this.#shell.setTick(this.#tick, account?.standing?.time_zone ?? "UTC");
    drawCharts();
    // Observing what is observed already changes nothing.
    for (const name of WATCHED) {
      const section = main.querySelector(`[data-key="${name}"]`);
      if (section) this.#sight.observe(section);
    }
  }

  #head({ id, standing }) {
    const { words } = this.#shell;
    const { found } = this.#choice;
    const isOnly = this.#session.customer !== null && found?.next === null && found.rows.length === 1 && this.#choice.text === "";
    return h("div", { class: "head", "data-key": "head" },
      h("div", {},
        h("h1", {}, foreign(id)),
        standing && h("p", { class: "facts" },
          h("span", {}, words.plan, " ", h("b", {}, foreign(standing.plan_name ?? standing.plan ?? words.unknown))),
          h("span", {}, words.customer, " ", h("b", {}, foreign(standing.customer ?? words.unknown))),
          h("span", {}, words.anchor(standing.billing_anchor)),
          h("span", {}, words.zone, " ", h("b", {}, foreign(standing.time_zone ?? "UTC"))))),
      h("div", { class: "side" },
        h("p", { id: "as-of", class: "as-of" }),
        !isOnly && h("button", { type: "button", "data-do": "other", "aria-expanded": String(this.#choice.isOpen) }, words.otherSubscription)));
  }

  #sections(account) {
    const view = this.#view();
    const bills = account.rows("bills");
    const forecasts = account.rows("forecast");
    const shown = bills.find((bill) => bill.period_start === account.bill) ?? runningBill(bills, view.now);
    const incidents = account.rows("incidents").filter((row) => row.subscription === account.id);
    const keys = account.keys;
    return [
      openNote(view, incidents),
      quotasSection(view, { quotas: account.standing.quotas, forecasts, currency: shown?.currency ?? null }),
      h("div", { class: "columns", "data-key": "billing" },
        billSection(view, { bill: shown, charges: account.rows("charges"), adjustments: account.rows("adjustments"), forecasts }),
        h("div", { class: "stack" },
          shown && billsSection(view, bills, shown),
          noticesSection(view, account.rows("notices")))),
      trafficSection(view, account.answer("usage"), account.widths),
      keysSection(view, keys, account.chosenKey(), account.keyWidths, {
        usage: account.answer("key-usage"), latency: account.answer("key-latency"), geo: account.answer("key-geo"),
      }),
      incidentsSection(view, account.answer("incidents") && incidents, keys?.rows ?? [], !account.isOwn),
    ];
  }
}

new Shell("me", (shell, session) => new Page(shell, session));
