//! The population: routes, subscriptions, and keys with their habits.
//!
//! Keys are ordered by popularity. So special properties go to every n-th key, or to keys picked at random, regardless
//! of rank.

use std::ops::Range;

use keytide_dataflow::model::time::DAY_MS;
use keytide_dataflow::model::{KeyState, hex};
use sha2::{Digest, Sha256};

use super::network::{ClientAddress, WorldNetworks};
use super::settings::WorldSettings;
use crate::draw::{Draw, Spread, Zipf};

const CENTRAL_EUROPE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
const EASTERN_EUROPE: &str = "EET-2EEST,M3.5.0/3,M10.5.0/4";

/// Countries in the order in which they are used, each with the IANA name of a time zone, for the tables, and its present
/// rule (POSIX TZ). By the rule clocks are the same on machines with other time zone databases or none.
pub(crate) const COUNTRIES: [(&str, &str, &str); 40] = [
    ("US", "America/New_York", "EST5EDT,M3.2.0,M11.1.0"),
    ("DE", "Europe/Berlin", CENTRAL_EUROPE),
    ("GB", "Europe/London", "GMT0BST,M3.5.0/1,M10.5.0"),
    ("FR", "Europe/Paris", CENTRAL_EUROPE),
    ("IN", "Asia/Kolkata", "IST-5:30"),
    ("JP", "Asia/Tokyo", "JST-9"),
    ("BR", "America/Sao_Paulo", "<-03>3"),
    ("CA", "America/Toronto", "EST5EDT,M3.2.0,M11.1.0"),
    ("NL", "Europe/Amsterdam", CENTRAL_EUROPE),
    ("AU", "Australia/Sydney", "AEST-10AEDT,M10.1.0,M4.1.0/3"),
    ("ES", "Europe/Madrid", CENTRAL_EUROPE),
    ("IT", "Europe/Rome", CENTRAL_EUROPE),
    ("PL", "Europe/Warsaw", CENTRAL_EUROPE),
    ("SE", "Europe/Stockholm", CENTRAL_EUROPE),
    ("SG", "Asia/Singapore", "<+08>-8"),
    ("KR", "Asia/Seoul", "KST-9"),
    ("MX", "America/Mexico_City", "CST6"),
    ("CH", "Europe/Zurich", CENTRAL_EUROPE),
    ("AT", "Europe/Vienna", CENTRAL_EUROPE),
    ("BE", "Europe/Brussels", CENTRAL_EUROPE),
    ("IE", "Europe/Dublin", "GMT0IST,M3.5.0/1,M10.5.0"),
    ("DK", "Europe/Copenhagen", CENTRAL_EUROPE),
    ("NO", "Europe/Oslo", CENTRAL_EUROPE),
    ("FI", "Europe/Helsinki", EASTERN_EUROPE),
    ("PT", "Europe/Lisbon", "WET0WEST,M3.5.0/1,M10.5.0"),
    ("CZ", "Europe/Prague", CENTRAL_EUROPE),
    ("RO", "Europe/Bucharest", EASTERN_EUROPE),
    ("GR", "Europe/Athens", EASTERN_EUROPE),
    ("TR", "Europe/Istanbul", "<+03>-3"),
    ("UA", "Europe/Kyiv", EASTERN_EUROPE),
    ("IL", "Asia/Jerusalem", "IST-2IDT,M3.4.4/26,M10.5.0"),
    ("AE", "Asia/Dubai", "<+04>-4"),
    ("ZA", "Africa/Johannesburg", "SAST-2"),
    ("NG", "Africa/Lagos", "WAT-1"),
    ("KE", "Africa/Nairobi", "EAT-3"),
    ("EG", "Africa/Cairo", "EET-2EEST,M4.5.5/0,M10.5.4/24"),
    ("AR", "America/Argentina/Buenos_Aires", "<-03>3"),
    ("CL", "America/Santiago", "<-04>4<-03>,M9.1.6/24,M4.1.6/24"),
    ("ID", "Asia/Jakarta", "WIB-7"),
    ("VN", "Asia/Ho_Chi_Minh", "<+07>-7"),
];

/// Id, name and policy of each plan, the commonest first.
pub(crate) const PLANS: [(&str, &str, &str); 5] = [
    ("free", "Free", "observe"),
    ("starter", "Starter", "alert"),
    ("team", "Team", "alert"),
    ("business", "Business", "suspend"),
    ("enterprise", "Enterprise", "revoke"),
];

/// The first plans have quotas of calls.
pub(crate) const PLANS_WITH_CALLS: usize = 2;
/// The index of the plan whose keys may be suspended.
pub(crate) const SUSPENDED: usize = 3;
const _: () = assert!(matches!(PLANS[SUSPENDED].2.as_bytes(), b"suspend"));

/// User agents: those that keys have by habit, then a tool for load tests.
pub(crate) const AGENTS: [&str; 17] = [
    "okhttp/4.12.0",
    "python-requests/2.32.3",
    "axios/1.7.9",
    "Go-http-client/2.0",
    "curl/8.11.1",
    "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
    "Java-http-client/21.0.5",
    "Apache-HttpClient/5.4.1 (Java/17.0.13)",
    "python-httpx/0.28.1",
    "aiohttp/3.11.11",
    "reqwest/0.12.12",
    "Faraday v2.12.2",
    "GuzzleHttp/7",
    "Dart/3.6 (dart:io)",
    "AcmeMobile/7.4.1 (iPhone; iOS 18.5; Scale/3.00)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "k6/0.55.0 (https://k6.io/)",
];
/// The part of each agent's text whose last number grows with an upgrade. Some have no version that changes.
const UPGRADED: [&str; AGENTS.len()] = [
    "/4.12", "/2.32", "/1.7.9", "", "/8.11", "", "/21.0.5", "/17.0.13", "/0.28", "/3.11", "/0.12.12",
    "v2.12", "", "/3.6", "/7.4", "/131", "/0.55",
];
pub(crate) const PHONE_SDK: u32 = 0;
pub(crate) const PHONE_APP: u32 = 14;
pub(crate) const BROWSER: u32 = 15;
pub(crate) const LOAD_TOOL: u32 = 16;
/// The number of [`AGENTS`] that keys have by habit.
pub(crate) const USUAL_AGENTS: u32 = LOAD_TOOL;
/// The most upgrades of an agent in a run.
pub(crate) const MAX_UPGRADES: u32 = 31;

/// Returns the agent of a family after a number of upgrades, as an index into the population's agents.
pub(crate) fn agent(family: u32, upgrades: u32) -> u32 {
    upgrades * AGENTS.len() as u32 + family
}

/// Returns the texts of all agents, in the order of [`agent`].
fn agents() -> Vec<Box<str>> {
    let upgraded = |upgrades: u32| {
        AGENTS.iter().zip(UPGRADED).map(move |(text, part)| {
            let digits = part.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            match part[digits..].parse::<u32>() {
                Ok(number) => {
                    text.replacen(part, &format!("{}{}", &part[..digits], number + upgrades), 1).into()
                }
                Err(_) => (*text).into(),
            }
        })
    };
    (0..=MAX_UPGRADES).flat_map(upgraded).collect()
}

pub(crate) const RESOURCES: [&str; 25] = [
    "orders",
    "customers",
    "products",
    "invoices",
    "payments",
    "shipments",
    "carts",
    "prices",
    "stocks",
    "quotes",
    "users",
    "teams",
    "sessions",
    "messages",
    "files",
    "reports",
    "events",
    "devices",
    "locations",
    "tickets",
    "vendors",
    "contracts",
    "coupons",
    "refunds",
    "webhooks",
];

/// Triples of method, whether the route names one item, and status of success.
const SHAPES: [(&str, bool, u16); 4] =
    [("GET", true, 200), ("GET", false, 200), ("POST", false, 201), ("DELETE", true, 204)];

const FIRST_NAMES: [&str; 16] = [
    "Amber", "Basalt", "Cedar", "Delta", "Ember", "Falcon", "Granite", "Harbor", "Indigo", "Juniper",
    "Kestrel", "Lumen", "Meridian", "Nimbus", "Orchid", "Pioneer",
];
const LAST_NAMES: [&str; 16] = [
    "Analytics",
    "Bank",
    "Cargo",
    "Devices",
    "Energy",
    "Foods",
    "Games",
    "Health",
    "Insurance",
    "Logistics",
    "Media",
    "Motors",
    "Outfitters",
    "Robotics",
    "Studios",
    "Travel",
];

/// A route with its usual latency and sizes.
pub(crate) struct RouteProfile {
    pub(crate) api: &'static str,
    pub(crate) method: &'static str,
    /// The path, in which `{id}` can only be at the end.
    pub(crate) template: Box<str>,
    pub(crate) success: u16,
    pub(crate) latency_us: u32,
    pub(crate) bytes_in: u32,
    pub(crate) bytes_out: u32,
}

pub(crate) struct Subscription {
    pub(crate) customer: Box<str>,
    /// The plan's index in [`PLANS`].
    pub(crate) plan: usize,
    /// The country's index in [`COUNTRIES`].
    pub(crate) country: u32,
    pub(crate) billing_anchor: u32,
    /// Counts milliseconds since the epoch.
    pub(crate) started_at: u64,
}

/// A key and its habits.
pub(crate) struct Key {
    /// The random part of the raw key.
    pub(crate) secret: u128,
    pub(crate) subscription: u32,
    /// The subscription to which the key is assigned from the middle of the run.
    pub(crate) moves_to: Option<u32>,
    /// True if the table of keys has a row for it.
    pub(crate) listed: bool,
    pub(crate) state: KeyState,
    pub(crate) publishable: bool,
    /// Counts milliseconds since the epoch, as all times here do.
    pub(crate) created_at: u64,
    pub(crate) last_used_at: u64,
    /// Meaningful only if the state is revoked.
    pub(crate) revoked_at: u64,
    /// True if the key may be used from its owner's country only.
    pub(crate) confined: bool,
    /// Indices into the population's clients, the most usual first.
    pub(crate) clients: Range<u32>,
    /// The key uses `routes` routes from this one on, and goes on from the population's last to its first.
    pub(crate) first_route: u32,
    pub(crate) routes: u16,
    /// Indices into [`AGENTS`], the usual one first.
    pub(crate) agents: [u32; 2],
}

impl Key {
    /// Returns the raw key, as callers send it.
    pub(crate) fn raw(&self) -> String {
        format!("kt_live_{:032x}", self.secret)
    }

    /// Returns the SHA-256 of the raw key in hex, which the table of keys has instead of it.
    pub(crate) fn hash(&self) -> String {
        hex(&Sha256::digest(self.raw()))
    }

    /// Returns the key's id, as views have it.
    pub(crate) fn id(&self) -> String {
        hex(&Sha256::digest(self.raw())[..16])
    }
}

/// Returns the id of a subscription by its index.
pub(crate) fn subscription_id(index: u32) -> String {
    format!("sub-{:05}", index + 1)
}

/// All callers and the routes that they call.
pub(crate) struct Population {
    pub(crate) networks: WorldNetworks,
    /// The addresses of a plain world. In a lively one habits decide.
    pub(crate) clients: Vec<ClientAddress>,
    /// The texts of user agents, at the indices of [`agent`].
    pub(crate) agents: Vec<Box<str>>,
    pub(crate) routes: Vec<RouteProfile>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) keys: Vec<Key>,
    /// Draws the rank of a caller, counted from `first_caller`.
    popularity: Zipf,
    first_caller: u32,
    /// Draws how much a call's latency and sizes differ from the usual ones.
    pub(crate) spread: Spread,
}

impl Population {
    pub(crate) fn new(settings: &WorldSettings, mut draw: Draw) -> Self {
        let (first_caller, callers) = settings.callers.unwrap_or((0, settings.keys));
        let mut population = Self {
            networks: WorldNetworks::new(settings),
            clients: Vec::new(),
            agents: agents(),
            routes: routes(settings.routes, &mut draw),
            subscriptions: Vec::new(),
            keys: Vec::new(),
            popularity: Zipf::new(callers, settings.zipf),
            first_caller,
            spread: Spread::new(),
        };
        population.populate(settings, &mut draw);
        population
    }

    /// Draws the key that calls next.
    pub(crate) fn caller(&self, draw: &mut Draw) -> u32 {
        self.first_caller + self.popularity.draw(draw)
    }

    /// Draws a route by the key's habits.
    pub(crate) fn usual_route(&self, key: &Key, draw: &mut Draw) -> u32 {
        (key.first_route + draw.habit(u32::from(key.routes))) % self.routes.len() as u32
    }

    /// Returns a route that isn't of a key's first habits, by its index among those.
    pub(crate) fn route_beyond(&self, key: &Key, index: u32) -> u32 {
        (key.first_route + u32::from(key.routes) + index) % self.routes.len() as u32
    }

    /// Returns the routes of a key's habits, each with its share.
    pub(crate) fn usual_routes(&self, key: &Key) -> impl Iterator<Item = (u32, f64)> {
        let (count, first, all) = (u32::from(key.routes), key.first_route, self.routes.len() as u32);
        (0..count).map(move |index| ((first + index) % all, Draw::habit_share(index, count)))
    }

    fn populate(&mut self, settings: &WorldSettings, draw: &mut Draw) {
        let now = settings.start_ms;
        let countries = Zipf::new(settings.countries, 1.0);
        let mut owners = Vec::new();
        while owners.len() < settings.keys as usize {
            let subscription = self.subscription(now, countries.draw(draw), draw);
            self.subscriptions.push(subscription);
            let owner = self.subscriptions.len() as u32 - 1;
            owners.extend(std::iter::repeat_n(owner, 1 + draw.habit(5) as usize));
        }
        owners.truncate(settings.keys as usize);
        // A shuffle (Fisher and Yates), so that a subscription's keys aren't equally popular.
        for last in (1..owners.len()).rev() {
            owners.swap(last, draw.below(last as u32 + 1) as usize);
        }
        let first_routes = Zipf::new(settings.routes, 0.8);
        for (index, owner) in owners.into_iter().enumerate() {
            let key = self.key(index, owner, settings, &first_routes, draw);
            self.keys.push(key);
        }
    }

    fn subscription(&self, now: u64, country: u32, draw: &mut Draw) -> Subscription {
        let index = self.subscriptions.len();
        // Every fourth subscription belongs to the customer of the one before.
        let customer = match self.subscriptions.last() {
            Some(previous) if draw.once_in(4) => previous.customer.clone(),
            _ => {
                let first = FIRST_NAMES[draw.below(FIRST_NAMES.len() as u32) as usize];
                let last = LAST_NAMES[draw.below(LAST_NAMES.len() as u32) as usize];
                format!("{first} {last} {}", index + 1).into()
            }
        };
        Subscription {
            customer,
            plan: draw.habit(PLANS.len() as u32) as usize,
            country,
            billing_anchor: 1 + draw.below(31),
            started_at: now.saturating_sub(DAY_MS * u64::from(30 + draw.below(1_000))),
        }
    }

    fn key(
        &mut self,
        index: usize,
        owner: u32,
        settings: &WorldSettings,
        first_routes: &Zipf,
        draw: &mut Draw,
    ) -> Key {
        let now = settings.start_ms;
        let (home, started_at) = {
            let owner = &self.subscriptions[owner as usize];
            (owner.country, owner.started_at)
        };
        let clients = self.clients.len() as u32;
        let providers: Vec<u32> = (0..1 + draw.habit(3)).map(|_| self.networks.draw_in(home, draw)).collect();
        // One key in seven is also used abroad, now and then.
        let abroad = draw.once_in(7).then(|| draw.below(self.networks.count()));
        for _ in 0..2 + draw.habit(12) {
            let provider = providers[draw.below(providers.len() as u32) as usize];
            self.clients.push(self.networks.draw_client(provider, draw));
        }
        self.clients.extend(abroad.map(|network| self.networks.draw_client(network, draw)));

        let age = now.saturating_sub(started_at);
        let created_at = started_at + draw.part_of(age);
        let moves_to = (index % 40 == 11).then(|| draw.below(self.subscriptions.len() as u32));
        let secret = draw.wide();
        let last_used_at = now - draw.part_of(now.saturating_sub(created_at).min(3 * DAY_MS));
        Key {
            secret,
            subscription: owner,
            moves_to: moves_to.filter(|to| *to != owner),
            listed: index % 40 != 17,
            state: match index % 40 {
                23 => KeyState::Suspended,
                29 => KeyState::Revoked,
                _ => KeyState::Active,
            },
            publishable: index % 20 == 7,
            created_at,
            last_used_at,
            revoked_at: last_used_at,
            confined: index % 10 == 3,
            clients: clients..self.clients.len() as u32,
            first_route: first_routes.draw(draw),
            routes: 1 + draw.below(settings.routes.min(20)) as u16,
            agents: [(); 2].map(|()| draw.habit(USUAL_AGENTS)),
        }
    }
}

fn routes(count: u32, draw: &mut Draw) -> Vec<RouteProfile> {
    let route = |index: u32, draw: &mut Draw| {
        let (resource, rest) = (index % RESOURCES.len() as u32, index / RESOURCES.len() as u32);
        let (shape, version) = (rest % SHAPES.len() as u32, rest / SHAPES.len() as u32 + 1);
        let api = RESOURCES[resource as usize];
        let (method, of_item, success) = SHAPES[shape as usize];
        RouteProfile {
            api,
            method,
            template: format!("/v{version}/{api}{}", if of_item { "/{id}" } else { "" }).into(),
            success,
            latency_us: 4_000 + 1_000 * draw.habit(150),
            bytes_in: if method == "POST" { 400 + draw.below(2_000) } else { 200 + draw.below(200) },
            bytes_out: if of_item { 300 + draw.below(2_000) } else { 1_000 + 100 * draw.habit(400) },
        }
    };
    (0..count).map(|index| route(index, draw)).collect()
}
