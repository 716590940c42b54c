//! The catalogue of what can be staged: leaks, and what looks like one but isn't. One table, [`KINDS`].

use crate::world::habit::Setting;

/// Whom an episode concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Key,
    /// All calls of one API fail.
    Api,
    Everybody,
}

/// Where staged calls come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Usual,
    /// New addresses in the key's usual network.
    UsualNetwork,
    /// Another network of the owner's country.
    HomeCountry(Setting),
    /// A network of another country.
    Abroad(Setting),
    /// All networks of all countries.
    Everywhere,
}

/// Whose user agent staged calls have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    Usual,
    /// One that the key doesn't have.
    Other,
    /// A tool's for load tests.
    LoadTool,
}

/// How staged calls spread over the episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    Even,
    /// From nothing, at a rate that grows with time.
    Growing,
    /// In the first minute of every hour.
    Hourly,
    /// From midnight to five by the owner's clock.
    Nights,
}

/// What the owner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    GoesOn,
    /// Hasn't used the key for 35 days at least, nor does in the run.
    Sleeps,
    /// Has the key revoked, and uses it until then.
    Revokes,
    /// Makes the usual calls from the episode's origin instead.
    Moves,
}

/// The parameters of one kind of episode. Those with two numbers are drawn evenly between them.
#[derive(Debug)]
pub(crate) struct Kind {
    /// In `labels.jsonl`.
    pub(crate) name: &'static str,
    pub(crate) leak: bool,
    pub(crate) scope: Scope,
    /// Hours that a run must have for it.
    pub(crate) span_h: u64,
    /// How long it takes, at most a quarter of the run; `None`: to the run's end.
    pub(crate) minutes: Option<(u32, u32)>,
    /// Staged calls in percent of the key's usual ones of the same time (its mean over a week); of everybody's
    /// and of an API's: the rate, and the share that fails.
    pub(crate) percent: (u32, u32),
    /// Staged calls an hour, at least.
    pub(crate) calls_per_hour: u32,
    pub(crate) origin: Origin,
    pub(crate) addresses: (u32, u32),
    pub(crate) agent: Agent,
    /// Whether it goes through routes, item by item, that the key never calls.
    pub(crate) new_routes: bool,
    /// Calls in a thousand that are answered 401 or 403.
    pub(crate) refused_permille: u32,
    pub(crate) course: Course,
    pub(crate) owner: Owner,
}

const LEAK: Kind = Kind {
    name: "",
    leak: true,
    scope: Scope::Key,
    span_h: 1,
    minutes: Some((15, 60)),
    percent: (0, 0),
    calls_per_hour: 0,
    origin: Origin::Abroad(Setting::Cloud),
    addresses: (1, 3),
    agent: Agent::Other,
    new_routes: false,
    refused_permille: 30,
    course: Course::Even,
    owner: Owner::GoesOn,
};
const LOOK_ALIKE: Kind =
    Kind { leak: false, origin: Origin::Usual, agent: Agent::Usual, refused_permille: 6, ..LEAK };

/// Leaks first. Episodes are dealt in this order, round after round.
pub(crate) const KINDS: [Kind; 17] = [
    // Found in a repository, used at once by a script on rented servers.
    Kind { name: "burst_new_origin", percent: (1_000, 5_000), calls_per_hour: 1_200, ..LEAK },
    // Somebody else works with the key, about as much as its owner does.
    Kind {
        name: "second_user",
        span_h: 6,
        minutes: Some((360, 2_880)),
        percent: (60, 150),
        calls_per_hour: 6,
        origin: Origin::Abroad(Setting::Home),
        addresses: (1, 2),
        ..LEAK
    },
    // Little enough to drown in the owner's traffic, for days.
    Kind {
        name: "slow_drip",
        span_h: 48,
        minutes: Some((1_440, 7_200)),
        percent: (20, 60),
        calls_per_hour: 2,
        addresses: (1, 1),
        ..LEAK
    },
    // A botnet or a proxy service: each address calls a few times.
    Kind {
        name: "fan_out",
        minutes: Some((30, 120)),
        percent: (200, 800),
        calls_per_hour: 1_200,
        origin: Origin::Everywhere,
        addresses: (200, 2_000),
        ..LEAK
    },
    // Everything there is, route by route.
    Kind {
        name: "scraping",
        minutes: Some((60, 240)),
        percent: (400, 2_000),
        calls_per_hour: 900,
        addresses: (1, 4),
        new_routes: true,
        ..LEAK
    },
    // From the owner's country, when its people sleep.
    Kind {
        name: "night_use",
        span_h: 96,
        minutes: Some((1_440, 7_200)),
        percent: (100, 400),
        calls_per_hour: 12,
        origin: Origin::HomeCountry(Setting::Home),
        addresses: (1, 2),
        course: Course::Nights,
        ..LEAK
    },
    // What is the key good for?
    Kind {
        name: "probing",
        minutes: Some((10, 60)),
        percent: (100, 600),
        calls_per_hour: 300,
        addresses: (1, 2),
        new_routes: true,
        refused_permille: 800,
        ..LEAK
    },
    // A key that nobody missed.
    Kind {
        name: "dormant_woken",
        minutes: Some((60, 720)),
        calls_per_hour: 200,
        owner: Owner::Sleeps,
        ..LEAK
    },
    // The thief hasn't noticed yet.
    Kind {
        name: "after_revocation",
        minutes: Some((30, 360)),
        percent: (50, 300),
        calls_per_hour: 60,
        refused_permille: 1_000,
        owner: Owner::Revokes,
        ..LEAK
    },
    // A campaign or a launch: everybody calls more.
    Kind {
        name: "launch_day",
        scope: Scope::Everybody,
        minutes: Some((120, 360)),
        percent: (200, 400),
        ..LOOK_ALIKE
    },
    // A deploy breaks an API for minutes; all who call it try again.
    Kind { name: "retry_storm", scope: Scope::Api, minutes: Some((5, 15)), percent: (85, 98), ..LOOK_ALIKE },
    // A customer's product takes off.
    Kind {
        name: "ramp_up",
        span_h: 24,
        minutes: None,
        percent: (300, 800),
        calls_per_hour: 20,
        course: Course::Growing,
        ..LOOK_ALIKE
    },
    // A new job, exactly at the hour.
    Kind {
        name: "cron_at_the_hour",
        span_h: 6,
        minutes: None,
        percent: (50, 300),
        calls_per_hour: 50,
        course: Course::Hourly,
        ..LOOK_ALIKE
    },
    // The same person, abroad for some days.
    Kind {
        name: "travelling_user",
        span_h: 24,
        minutes: Some((1_440, 7_200)),
        origin: Origin::Abroad(Setting::Mobile),
        addresses: (2, 6),
        owner: Owner::Moves,
        ..LOOK_ALIKE
    },
    // Another provider, a new office.
    Kind {
        name: "network_change",
        span_h: 24,
        minutes: None,
        origin: Origin::HomeCountry(Setting::Office),
        addresses: (1, 2),
        owner: Owner::Moves,
        ..LOOK_ALIKE
    },
    // More machines for more traffic, all at the usual provider.
    Kind {
        name: "autoscaling",
        minutes: Some((60, 480)),
        percent: (150, 400),
        calls_per_hour: 300,
        origin: Origin::UsualNetwork,
        addresses: (20, 100),
        ..LOOK_ALIKE
    },
    // The customer tests its own limits.
    Kind {
        name: "load_test",
        minutes: Some((15, 45)),
        percent: (1_500, 5_000),
        calls_per_hour: 2_400,
        agent: Agent::LoadTool,
        ..LOOK_ALIKE
    },
];
