// The incidents of all customers, and the evidence of one, for people of security. All times are UTC.
//
// Two questions are asked every five seconds: who asks, which says the newest tick, and for the newest incidents, whose answer is
// 304 until one of them changes. The address names the incident behind `#`.

import { Poll, tickOf } from "./api.js";
import { drawCharts } from "./chart.js";
import { foreign, h, update } from "./dom.js";
import { evidence } from "./evidence.js";
import { moment, whole } from "./format.js";
import { TONES } from "./incidents.js";
import { badge, choice, empty, section } from "./parts.js";
import { place, setPlace } from "./session.js";
import { Shell } from "./shell.js";

/** Incidents of the first answer, and at most; each is some kB with its evidence. */
const FIRST = 50;
const MOST = 1_000;

const LEVELS = ["revoke", "alert", "notice"];

/** Open incidents come first, the gravest of them before others. */
const rank = ({ state, level }) => (state === "open" ? LEVELS.indexOf(level) : LEVELS.length);

class Page {
  #shell;
  #poll;
  #tick = undefined;
  #rows = null;
  #limit = FIRST;
  #filter = "open";
  #text = "";
  #chosen = place().incident ?? null;

  constructor(shell) {
    this.#shell = shell;
    // An incident that is named may be over.
    if (this.#chosen) this.#filter = "all";
    this.#poll = new Poll(() => this.#ask(), (wait) => shell.failed(wait));
    addEventListener("popstate", this.#moved);
    shell.main.addEventListener("input", this.#typed);
    this.#poll.now();
  }

  end() {
    this.#poll.end();
    removeEventListener("popstate", this.#moved);
    this.#shell.main.removeEventListener("input", this.#typed);
  }

  act(what, value) {
    if (what === "filter") this.#filter = value;
    else if (what === "incident") {
      this.#chosen = value;
      setPlace({ incident: value });
    } else if (what === "more") {
      this.#limit = Math.min(this.#limit * 4, MOST);
      this.#poll.now();
    } else return;
    this.draw();
    if (what !== "incident") return;
    const heading = document.getElementById("of-evidence");
    heading?.focus({ preventScroll: true });
    if (heading && heading.getBoundingClientRect().top > innerHeight) heading.scrollIntoView();
  }

  #moved = () => {
    this.#chosen = place().incident ?? null;
    this.draw();
  };

  #typed = (event) => {
    if (event.target.id !== "filter") return;
    this.#text = event.target.value.trim().toLowerCase();
    this.draw();
  };

  #ask() {
    const { api } = this.#shell;
    return this.#shell.ask(async () => {
      const [session, incidents] = await Promise.all([api.get("/v1/session"), api.get(`/v1/incidents?limit=${this.#limit}`)]);
      this.#tick = tickOf(session.data.tick);
      this.#rows = incidents.data.rows;
    });
  }

  #matches(row) {
    if (this.#filter === "open" && row.state !== "open") return false;
    const names = [row.key_id, row.customer, row.subscription, row.incident_id];
    return names.some((name) => name?.toLowerCase().includes(this.#text));
  }

  draw() {
    const { main, words, language, api } = this.#shell;
    const view = { words, language, now: api.now() };
    const rows = this.#rows;
    const chosen = rows?.find((row) => row.incident_id === this.#chosen);
    update(main,
      h("div", { class: "head" }, h("h1", {}, words.pageOf.security), h("p", { id: "as-of", class: "as-of" })),
      !rows ? h("p", { class: "soft" }, words.waiting)
        : h("div", { class: "split", "data-key": "split" },
            this.#list(view, rows),
            h("section", { class: "card", "aria-label": words.why },
              chosen ? evidence(view, chosen) : empty(this.#chosen ? words.notThere : words.pickIncident))));
    this.#shell.setTick(this.#tick, "UTC");
    drawCharts();
  }

  #list({ words, language, now }, rows) {
    const shown = rows.filter((row) => this.#matches(row))
      .toSorted((a, b) => rank(a) - rank(b) || Date.parse(b.opened_at) - Date.parse(a.opened_at));
    const nothing = this.#filter === "open" && this.#text === "" ? words.noOpen : words.noMatch;
    return section("incidents", words.incidents, choice("filter", words.filterLabel, words.filters, this.#filter),
      h("div", { class: "search" },
        h("label", { for: "filter" }, words.filterText),
        h("input", { id: "filter", type: "search", autocomplete: "off", spellcheck: "false", maxlength: "512" })),
      h("p", { class: "soft", role: "status" }, words.listOf(shown.length, rows.length)),
      shown.length === 0 ? empty(nothing)
        : h("ul", { class: "rows" }, shown.map((row) => this.#row({ words, language, now }, row))),
      rows.length === this.#limit && this.#limit < MOST &&
        h("button", { type: "button", "data-do": "more" }, words.more));
  }

  #row({ words, language, now }, { incident_id: id, key_id: key, customer, level, state, score, opened_at: opened, signals }) {
    const first = signals[0]?.signal;
    return h("li", { "data-key": id },
      h("button", { type: "button", "data-do": "incident", "data-value": id, "aria-pressed": String(id === this.#chosen) },
        h("span", { class: "line" },
          badge(state === "open" ? TONES[level] : "", words.severity[level] ?? level),
          state === "open" ? null : badge("", words.incidentState[state] ?? state),
          h("strong", { class: "mono" }, foreign(key)),
          h("b", { class: "end" }, `${whole(score)}\u00a0%`)),
        h("span", { class: "line soft" },
          h("span", {}, Object.hasOwn(words.signals, first) ? words.signals[first] : foreign(first ?? "")),
          h("span", { class: "end" }, moment(opened, "UTC", language, now))),
        customer !== null && h("span", { class: "line soft" }, foreign(customer))));
  }
}

new Shell("security", (shell) => new Page(shell), ["security"]);
