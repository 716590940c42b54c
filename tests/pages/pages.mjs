// Opens the pages of a live job in Chromium: see run.sh.
//
// The job is a process of its own. It reads the traffic of `keytide demo` from that demo's broker, and sells its keys to three
// customers: Acme, one with names that try to be HTML, and one that makes no calls. Pages are opened in English and Korean, light
// and dark, on a phone and on a desk. None may have an error, a violation of its policy, or one of axe's rules.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { setTimeout as after } from "node:timers/promises";
import { chromium } from "playwright-core";

const [scratch, keytide, browserPath] = process.argv.slice(2);
const DEADLINE_MS = 240_000;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Bytes of a page's first view on the wire, at most: all that is loaded before somebody scrolls. */
const FIRST_VIEW_BYTES = 100_000;
/** Bytes of an answer that says that nothing changed, at most. */
const UNCHANGED_BYTES = 600;

// 500 bytes without a blank but one, which would be an image, turn the direction of text, and end a tag and a text.
const HOSTILE = `<img src=x onerror=alert(1)>\u202e"'${"x".repeat(430)}<script>alert(2)</script>`;
const EVIL = "\"><b>evil</b>\u202e";
const TOKENS = {
  admin: { role: "admin" },
  check: { role: "check" },
  acme: { role: "consumer", customer: "Acme" },
  evil: { role: "consumer", customer: EVIL },
  quiet: { role: "consumer", customer: "Quiet" },
};
// Tokens in base64 have signs that addresses mean otherwise.
for (const token of Object.values(TOKENS)) token.text = `a+b/${randomBytes(24).toString("base64")}`;
const SUBSCRIPTIONS = [
  { id: "sub-acme", customer: "Acme", plan: "business", zone: "Europe/Berlin" },
  { id: "sub-acme-2", customer: "Acme", plan: "business", zone: "Asia/Seoul" },
  { id: HOSTILE, customer: EVIL, plan: "<i>plan</i>", zone: "Asia/Kolkata" },
  { id: "sub-quiet", customer: "Quiet", plan: "business", zone: "UTC" },
];

/** Looks until there is a value. */
async function eventually(what, look) {
  const end = Date.now() + DEADLINE_MS;
  while (Date.now() < end) {
    const found = await look();
    if (found) return found;
    await after(50);
  }
  throw new Error(`in vain: ${what}`);
}

const freePort = () =>
  new Promise((found) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });

const processes = [];

/** Starts a process that ends with the test. */
function start(name, parts, options) {
  const child = spawn(keytide, parts, { stdio: ["ignore", "pipe", "pipe"], ...options });
  const log = createWriteStream(`${scratch}/${name}.log`);
  child.stdout.pipe(log);
  child.stderr.pipe(log);
  const ended = new Promise((done) => child.on("exit", done));
  const started = {
    ended,
    stop: async () => {
      child.kill();
      await ended;
    },
    /** Looks until there is a value, while the process runs. */
    eventually: (look) =>
      eventually(name, async () => {
        if (child.exitCode !== null) throw new Error(`${name} ended:\n${(await readFile(`${scratch}/${name}.log`, "utf8")).slice(-3_000)}`);
        return look();
      }),
  };
  processes.push(started);
  return started;
}

const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

async function writeTable(folder, name, head, rows) {
  await writeFile(`${folder}/${name}.new`, [head, ...rows.map((row) => row.map(quoted).join(","))].join("\n") + "\n");
  await rename(`${folder}/${name}.new`, `${folder}/${name}.csv`);
}

/** Starts the demo, whose broker has the traffic; returns the broker and the hashes of keys. */
async function startDemo() {
  const folder = `${scratch}/demo`;
  const demo = start("demo", ["demo", "--headless", "--rate", "50", "--duration", "1h", "--out", folder]);
  const config = await demo.eventually(() => readFile(`${folder}/keytide.toml`, "utf8").catch(() => null));
  const keys = await readFile(`${folder}/tables/keys.csv`, "utf8");
  const [head, ...rows] = keys.trim().split("\n").map((row) => row.split(","));
  return { brokers: config.match(/^brokers = "(.*)"$/m)[1], hashes: rows.map((row) => row[head.indexOf("key_hash")]) };
}

/** Starts the job; returns its process and its address. */
async function startJob({ brokers, hashes }) {
  const folder = `${scratch}/job`;
  await mkdir(folder);
  const port = await freePort();
  const tables = ["keys", "subscriptions", "plans", "prices", "quotas"].map((name) =>
    `[tables.${name}]\nkind = "file"\npath = "${name}.csv"\nformat = "csv"\n`);
  const tokens = Object.entries(TOKENS).map(([name, { role, customer }]) =>
    `[[api.token]]\nname = "${name}"\ntoken = "env:${name.toUpperCase()}"\nrole = "${role}"\n${customer ? `customer = ${JSON.stringify(customer)}\n` : ""}`);
  await writeFile(`${folder}/keytide.toml`,
    `[job]\nname = "shown"\ntick = "1s"\nreload = "1s"\n` +
    `[[source]]\nname = "gateway"\nkind = "kafka"\nbrokers = "${brokers}"\ntopic = "access-events"\nformat = "json"\n` +
    `[source.fields]\ntime = { at = "/requestTime", unit = "ms" }\nkey = "/apiKey"\nstatus = "/status"\nlatency = { at = "/latencyMs", unit = "ms" }\n` +
    `bytes_in = "/requestLength"\nbytes_out = "/responseLength"\nclient_ip = "/ip"\n[geo]\ncountry = "${scratch}/demo/geo/country.mmdb"\n` +
    `[windows]\nout_of_orderness = "5s"\nallowed_lateness = "10s"\n[sink.files]\ndir = "views"\n${tables.join("")}` +
    `[api]\nlisten = "127.0.0.1:${port}"\n${tokens.join("")}[pages]\n`);
  // Keys of the quiet subscription are of no caller.
  const ownerOf = (place) => SUBSCRIPTIONS[place % 3].id;
  const quiet = createHash("sha256").update("nobody calls with it").digest("hex");
  await writeTable(folder, "keys", "key_hash,subscription,state",
    [...hashes.map((hash, place) => [hash, ownerOf(place), place === 9 ? "suspended" : "active"]), [quiet, "sub-quiet", "active"]]);
  await writeTable(folder, "subscriptions", "id,customer,plan,time_zone,billing_anchor",
    SUBSCRIPTIONS.map(({ id, customer, plan, zone }) => [id, customer, plan, zone, 1]));
  await writeTable(folder, "plans", "id,name,currency,base_fee", [["business", "Business", "EUR", "49"], ["<i>plan</i>", "<i>plan</i>", "KRW", "33000"]]);
  await writeTable(folder, "prices", "plan,item,metric,model,unit,up_to,unit_price", [
    ["business", "calls", "calls", "graduated", "", "100", "0"], ["business", "calls", "calls", "graduated", "", "", "0.0008"],
    ["<i>plan</i>", "<u>calls</u>", "calls", "unit", "", "", "3"],
  ]);
  await writeTable(folder, "quotas", "plan,subscription,metric,period,limit,hard", [
    ["business", "", "calls", "month", "1000000", "true"], ["business", "", "cost", "billing", "5000", "false"],
    ["", HOSTILE, "calls", "day", "1", "false"], ["", "sub-acme", "calls", "minute", "100000", "true"],
  ]);
  const environment = Object.fromEntries(Object.entries(TOKENS).map(([name, { text }]) => [name.toUpperCase(), text]));
  const job = start("job", ["run", "keytide.toml"], { cwd: folder, env: { PATH: process.env.PATH, HOME: scratch, ...environment } });
  const address = `http://127.0.0.1:${port}`;
  const rows = async (path) => {
    const response = await fetch(address + path, { headers: { "X-Keytide-Token": TOKENS.admin.text } }).catch(() => null);
    return response?.ok ? (await response.json()).rows : [];
  };
  for (const { id } of SUBSCRIPTIONS.slice(0, 3)) {
    for (const view of ["usage", "bills", "charges"]) {
      await job.eventually(async () => (await rows(`/v1/subscriptions/${encodeURIComponent(id)}/${view}`)).length > 0);
    }
  }
  return { job, address };
}

const LANGUAGES = { en: "en-US", ko: "ko-KR" };
const SIZES = { phone: { width: 360, height: 740 }, desk: { width: 1440, height: 900 }, wall: { width: 3840, height: 2160 } };

let browser;
let address;

/** Opens a page in a browser of its own, and notes what goes wrong there. */
async function open(path, { size = "desk", language = "en", scheme = "light", clock = false } = {}) {
  const context = await browser.newContext({
    viewport: SIZES[size], locale: LANGUAGES[language], colorScheme: scheme, timezoneId: "America/New_York",
  });
  const page = await context.newPage();
  page.wrong = [];
  page.asked = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.wrong.push(message.text());
  });
  page.on("pageerror", (error) => page.wrong.push(`${error.message}\n${error.stack}`));
  page.on("dialog", (dialog) => page.wrong.push(`a dialog: ${dialog.message()}`));
  page.on("request", (request) => page.asked.push(request));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
      console.error(`policy: ${violatedDirective} ${blockedURI}`));
  });
  if (clock) await page.clock.install();
  await page.goto(address + path);
  return page;
}

const withToken = (name, rest = "") => `#token=${encodeURIComponent(TOKENS[name].text)}${rest}`;
const subscription = (id) => `&subscription=${encodeURIComponent(id)}`;

/** Checks that nothing went wrong in a page, and ends it. A question without a token is answered by 401, which browsers report. */
async function close(page, what, allowed = /^$/) {
  assert.deepEqual(page.wrong.filter((text) => !allowed.test(text)), [], what);
  await page.context().close();
}

const REFUSED = /the server responded with a status of 401/;

/** Scrolls through a page, so that all of it is fetched and drawn. */
async function scroll(page) {
  for (const section of await page.locator("main section").all()) {
    await section.scrollIntoViewIfNeeded();
    await page.waitForFunction(() => document.querySelectorAll(".waiting").length === 0 || scrollY + innerHeight < document.body.scrollHeight);
  }
  await page.waitForFunction(() => document.querySelectorAll("main .waiting").length === 0);
  await page.evaluate(() => scrollTo({ top: 0, behavior: "instant" }));
}

/** Runs axe's rules, and looks for what is wider than the window. */
async function inspect(page, what) {
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wider <= 0, `${what} is ${wider} px wider than the window`);
  await page.evaluate(() => document.querySelectorAll("details").forEach((details) => details.setAttribute("open", "")));
  // As a question of the browser's own tools: the page's policy lets in no script from outside.
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 200)).join("\n")}`);
  });
  assert.deepEqual(found, [], what);
}

/** Every page as its readers see it, in both languages and schemes, on a phone and a desk, and an account on a wall. */
async function everyPageIsInOrder() {
  const views = [
    ["sign-in", "/", "form"],
    ["start", `/${withToken("admin")}`, ".ways"],
    ["choice", `/me${withToken("acme")}`, ".found button"],
    ["account", `/me${withToken("acme", subscription("sub-acme"))}`, ".quota"],
    ["hostile", `/me${withToken("evil")}`, ".quota"],
    ["quiet", `/me${withToken("quiet")}`, ".quota"],
    ["security", `/security${withToken("admin")}`, "#of-incidents"],
    ["gateway", `/me${withToken("check")}`, "main p"],
  ];
  // Every pair of a language, a scheme and a size of these two.
  const forms = [["en", "light", "phone"], ["en", "dark", "desk"], ["ko", "light", "desk"], ["ko", "dark", "phone"]];
  const wall = [["en", "light", "wall"], ["ko", "dark", "wall"]];
  let count = 0;
  for (const [name, path, wanted] of views) {
    for (const [language, scheme, size] of name === "account" ? [...forms, ...wall] : forms) {
      const what = `${name}, ${language}, ${scheme}, ${size}`;
      const page = await open(path, { language, scheme, size });
      await page.locator(wanted).first().waitFor();
      await scroll(page);
      assert.equal(await page.evaluate(() => document.documentElement.lang), language, what);
      if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${what.replaceAll(", ", "-")}.png`, fullPage: true });
      await inspect(page, what);
      await close(page, what, name === "sign-in" ? REFUSED : undefined);
      count += 1;
    }
  }
  return `${count} views`;
}

/** Names that try to be HTML are texts, wherever they stand. */
async function hostileNamesAreTexts() {
  const page = await open(`/me${withToken("evil")}`);
  await page.locator(".quota").first().waitFor();
  await scroll(page);
  assert.equal(await page.locator("h1").textContent(), HOSTILE);
  assert.ok((await page.locator(".facts").textContent()).includes(EVIL));
  assert.ok((await page.locator(".lines").textContent()).includes("<u>calls</u>"));
  assert.equal(await page.locator("main :is(img, script, b b, u, i:not(.swatch))").count(), 0);
  assert.equal(await page.locator("h1 bdi").evaluate((name) => getComputedStyle(name).unicodeBidi), "isolate");
  await close(page, "hostile names");
}

/** A token goes from the link into the tab, and from there into the API's header alone. */
async function theTokenLeavesTheAddress() {
  const page = await open(`/me${withToken("acme", subscription("sub-acme"))}`);
  await page.locator(".quota").first().waitFor();
  assert.equal(page.url(), `${address}/me#subscription=sub-acme`);
  assert.equal(await page.evaluate(() => sessionStorage.getItem("keytide.token")), TOKENS.acme.text);
  for (const request of page.asked) {
    const headers = await request.allHeaders();
    const isOfApi = new URL(request.url()).pathname.startsWith("/v1/");
    assert.equal(headers["x-keytide-token"], isOfApi ? TOKENS.acme.text : undefined, request.url());
    assert.ok(request.url().startsWith(`${address}/`), request.url());
    // The first navigation has the fragment, which browsers don't send.
    assert.ok(isOfApi || !headers.referer?.includes("token"), request.url());
    if (isOfApi) assert.ok(!request.url().includes(encodeURIComponent(TOKENS.acme.text)), request.url());
  }
  await page.locator("[data-do=sign-out]").click();
  await page.locator("#token").waitFor();
  assert.deepEqual(await page.evaluate(() => [sessionStorage.length, document.querySelectorAll(".quota").length]), [0, 0]);
  assert.equal(page.url(), `${address}/me`);
  // A plus sign in an address isn't a blank.
  await page.goto("about:blank");
  await page.goto(`${address}/me#token=${TOKENS.acme.text}`);
  await page.locator(".found button").first().waitFor();
  assert.equal(page.url(), `${address}/me`);
  await close(page, "the token");
}

async function aConsumerSeesItsOwnAlone() {
  const page = await open(`/me${withToken("acme")}`);
  await page.locator(".found button").first().waitFor();
  assert.deepEqual(await page.locator(".found strong").allTextContents(), ["sub-acme", "sub-acme-2"]);
  await page.goto(`${address}/me#subscription=sub-quiet`);
  await page.locator(".callout").waitFor();
  assert.equal(await page.locator(".quota").count(), 0);
  assert.equal(page.url(), `${address}/me`);
  await page.goto(`${address}/security`);
  await page.getByText("Your token doesn't open this page.").waitFor();
  assert.deepEqual(page.asked.filter((request) => request.url().includes("/v1/incidents") && request.frame().url().includes("/security")), []);
  await close(page, "a consumer", /the server responded with a status of 404/);
}

/** Operators find a subscription by a part of its name or of its customer's. */
async function operatorsSearchOnTheServer() {
  const page = await open(`/me${withToken("admin")}`);
  await page.locator(".found button").first().waitFor();
  assert.equal(await page.locator(".found li").count(), SUBSCRIPTIONS.length);
  const search = page.getByRole("searchbox");
  for (const [text, wanted] of [["ACME", ["sub-acme", "sub-acme-2"]], ["quiet", ["sub-quiet"]], ["<B>EVIL", [HOSTILE]], ["none has that", []]]) {
    await search.fill(text);
    await eventually(`a search for ${text}`, async () =>
      JSON.stringify(await page.locator(".found strong").allTextContents()) === JSON.stringify(wanted));
  }
  await close(page, "a search");
}

/** What is loaded before somebody scrolls: files are sent by gzip, answers as they are. */
async function theFirstViewIsSmall() {
  const said = [];
  for (const [name, path, wanted] of [
    ["sign-in", "/", "form"],
    ["account", `/me${withToken("acme", subscription("sub-acme"))}`, ".lines"],
    ["account in Korean", `/me${withToken("acme", subscription("sub-acme"))}`, ".lines"],
    ["security", `/security${withToken("admin")}`, "#of-incidents"],
  ]) {
    const page = await open(path, { language: name.endsWith("Korean") ? "ko" : "en" });
    await page.locator(wanted).first().waitFor();
    await page.waitForLoadState("networkidle");
    const [sent, all] = await page.evaluate(() => {
      const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
      return [entries.reduce((sum, entry) => sum + entry.encodedBodySize, 0), entries.reduce((sum, entry) => sum + entry.decodedBodySize, 0)];
    });
    assert.ok(sent > 1_000 && sent < FIRST_VIEW_BYTES, `${name} loads ${sent} bytes`);
    said.push(`${name} ${sent} of ${all} bytes`);
    await close(page, name, REFUSED);
  }
  return said.join(", ");
}

/** A poll without news is 304, has no body, and asks for nothing else. */
async function aPollWithoutNewsIsSmall() {
  const page = await open(`/me${withToken("quiet")}`);
  const answers = [];
  page.on("response", (response) => answers.push(response));
  const isPoll = (response) => response.url().endsWith("/v1/subscriptions/sub-quiet");
  // Between two polls that are 304 nothing is asked for, but the list of keys once a minute: their states change without a call.
  // An incident of anybody is news.
  const answer = await eventually("two polls without news", () => {
    const polls = [...answers.keys()].filter((place) => isPoll(answers[place]));
    const last = polls.findLast((place, at) => at > 0 && answers[place].status() === 304 && answers[polls[at - 1]].status() === 304);
    if (last === undefined) return null;
    const between = answers.slice(polls[polls.indexOf(last) - 1] + 1, last).map((response) => response.url());
    assert.deepEqual(between.filter((url) => !url.includes("/keys?")), []);
    return answers[last];
  });
  const { responseHeadersSize, responseBodySize } = await answer.request().sizes();
  assert.ok(Date.parse(answer.headers()["x-keytide-tick"]) > 0, "a 304 says the tick");
  assert.ok(responseBodySize === 0 && responseHeadersSize < UNCHANGED_BYTES, `${responseHeadersSize} + ${responseBodySize}`);
  await close(page, "a poll");
  return `${responseHeadersSize} bytes`;
}

const pathOf = (request) => new URL(request.url()).pathname;

/** Waits until a page has all answers, and asks for nothing while one more question is answered. */
async function settled(page) {
  await eventually("a page at rest", async () => {
    const before = page.asked.length;
    const responses = await Promise.all(page.asked.map((request) => request.response().catch(() => null)));
    await Promise.all(responses.map((response) => response?.finished()));
    await page.evaluate(async () => (await fetch("/v1/session")).text());
    return page.asked.length === before + 1;
  });
}

/** A page that is hidden asks nothing for two minutes of its clock, and asks at once when it is seen again. */
async function aHiddenPageAsksNothing() {
  const page = await open(`/me${withToken("quiet")}`, { clock: true });
  await page.locator(".quota").first().waitFor();
  const isPoll = (message) => message.url().endsWith("/v1/subscriptions/sub-quiet");
  const polled = page.waitForResponse(isPoll);
  await page.clock.fastForward(10_000);
  await polled;
  await settled(page);
  const show = (isHidden) => page.evaluate((isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
  const before = page.asked.length;
  await show(true);
  await settled(page);
  await page.clock.fastForward(120_000);
  await settled(page);
  assert.deepEqual(page.asked.slice(before).map(pathOf).filter((path) => path !== "/v1/session"), []);
  const seen = page.waitForResponse(isPoll);
  await show(false);
  await seen;
  await close(page, "a hidden page", REFUSED);
}

/** The way to the numbers needs no mouse. */
async function keysAloneSignIn() {
  const page = await open("/me");
  await page.locator("#token").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  const error = page.locator("#token-error");
  const enter = async (text, wanted) => {
    await page.keyboard.press("Control+A");
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
    await page.waitForFunction((text) => document.getElementById("token-error")?.textContent.includes(text), wanted);
    assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  };
  await page.keyboard.press("Enter");
  assert.equal(await error.textContent(), "Type in your token.");
  await enter("tökén", "letters, digits and signs of ASCII");
  await enter("wrong", "This token opens nothing.");
  await page.keyboard.type(TOKENS.quiet.text);
  await page.keyboard.press("Enter");
  await page.locator(".quota").first().waitFor();
  // The first stop of a page skips the header.
  await page.reload();
  await page.locator(".quota").first().waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => [document.activeElement.closest("main") !== null, getComputedStyle(document.activeElement).outlineStyle]);
  assert.deepEqual(outline, [true, "solid"]);
  await close(page, "keys alone", REFUSED);
}

/** Language and colours are chosen once, and stay. */
async function choicesStay() {
  const page = await open(`/me${withToken("quiet")}`);
  await page.locator(".quota").first().waitFor();
  await page.selectOption("[data-set=language]", "ko");
  await page.getByRole("heading", { name: "한도", exact: true }).waitFor();
  await page.selectOption("[data-set=theme]", "dark");
  const shown = () => page.evaluate(() => [document.documentElement.lang, getComputedStyle(document.body).backgroundColor]);
  const chosen = await shown();
  await page.reload();
  await page.getByRole("heading", { name: "한도", exact: true }).waitFor();
  assert.deepEqual(await shown(), chosen);
  await close(page, "choices");
}

/** When the API is gone, a banner says so, and the last numbers stay. */
async function aBannerSaysThatTheApiIsGone(job) {
  const page = await open(`/me${withToken("acme", subscription("sub-acme"))}`);
  await page.locator(".quota").first().waitFor();
  assert.equal(await page.locator("#banner").textContent(), "");
  await job.stop();
  await page.waitForFunction(() => document.getElementById("banner").textContent !== "", null, { timeout: DEADLINE_MS });
  const text = await page.locator("#banner").textContent();
  assert.match(text, /^The API doesn't answer\. These are the last numbers that came\. The next try is within (10|20) s\.$/);
  assert.ok(await page.locator("body.old .quota").count() > 0);
  await close(page, "the API is gone", /net::ERR_CONNECTION_REFUSED/);
}

async function main() {
  const { job, address: listening } = await startJob(await startDemo());
  address = listening;
  browser = await chromium.launch({ executablePath: browserPath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
  const checks = [
    everyPageIsInOrder, hostileNamesAreTexts, theTokenLeavesTheAddress, aConsumerSeesItsOwnAlone, operatorsSearchOnTheServer,
    theFirstViewIsSmall, aPollWithoutNewsIsSmall, aHiddenPageAsksNothing, keysAloneSignIn, choicesStay, aBannerSaysThatTheApiIsGone,
  ];
  for (const check of checks) {
    const said = await check(job);
    console.log(`pages: ${check.name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}${said ? `: ${said}` : ""}`);
  }
}

try {
  await main();
} finally {
  await browser?.close();
  await Promise.all(processes.map((process) => process.stop()));
}
