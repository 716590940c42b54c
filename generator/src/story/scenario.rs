//! The catalogue of episodes: leaks, and harmless look-alikes. The table [`KINDS`] has all of them.

use crate::world::network::NetworkKind;

/// The calls that an episode concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpisodeScope {
    Key,
    /// Several keys of different customers get an episode each, from the same addresses and within an hour.
    Database,
    /// Most calls of one API fail.
    Api,
    Everybody,
}

/// The addresses that staged calls come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOrigin {
    Usual,
    /// New addresses in the key's usual network.
    UsualNetwork,
    /// Another network of the owner's country.
    HomeCountry(NetworkKind),
    /// A network of another country.
    Abroad(NetworkKind),
    /// The usual cloud in a country where the key isn't used.
    NewRegion,
    /// All networks of all countries.
    Everywhere,
}

/// The user agent of staged calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentChoice {
    Usual,
    /// Calls have an agent that the key never uses.
    Other,
    LoadTool,
}

/// The distribution of staged calls over the episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpisodeCourse {
    Even,
    /// The rate grows from 0 in proportion to time.
    Growing,
    /// Calls come in the first minute of every hour.
    Hourly,
    /// Calls come from midnight to five by the owner's clock.
    Nights,
    /// One gateway's calls are held back and then come within a minute.
    Backlog,
}

/// The behaviour of the key's owner during an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerBehaviour {
    GoesOn,
    /// The owner hasn't used the key for at least 35 days, and doesn't use it in the run.
    Sleeps,
    /// The owner has the key revoked at the episode's start, and uses it until then.
    Revokes,
    /// The owner makes the usual calls from the episode's origin instead.
    Moves,
    /// The owner's client gets another user agent and calls a few new routes, from the usual places.
    Upgrades,
}

/// The parameters of one kind of episode. Pairs are ranges from which a number is drawn evenly.
#[derive(Debug)]
pub(crate) struct EpisodeKind {
    pub(crate) name: &'static str,
    pub(crate) leak: bool,
    pub(crate) scope: EpisodeScope,
    /// The shortest run, in hours, that can have the episode.
    pub(crate) span_h: u64,
    /// The duration, at most a quarter of the run; with `None` the episode lasts to the run's end.
    pub(crate) minutes: Option<(u32, u32)>,
    /// Staged calls in percent of the key's usual ones of the same time (its mean over a week). For episodes of
    /// everybody it is the rate in percent of the usual one, for those of an API the share of calls that fail, for a
    /// backlog the share of calls that are held back.
    pub(crate) percent: (u32, u32),
    /// The least rate of staged calls.
    pub(crate) calls_per_hour: u32,
    pub(crate) origin: CallOrigin,
    pub(crate) addresses: (u32, u32),
    pub(crate) agent: AgentChoice,
    /// The calls by which the thief tries the key first; 0 for none. A pause of 2 to 6 hours follows.
    pub(crate) probes: u32,
    /// True if the calls go through routes that the key never calls, item by item.
    pub(crate) new_routes: bool,
    /// The number of calls in a thousand that are answered 401 or 403.
    pub(crate) refused_permille: u32,
    pub(crate) course: EpisodeCourse,
    pub(crate) owner: OwnerBehaviour,
}

const LEAK: EpisodeKind = EpisodeKind {
    name: "",
    leak: true,
    scope: EpisodeScope::Key,
    span_h: 1,
    minutes: Some((15, 60)),
    percent: (0, 0),
    calls_per_hour: 0,
    origin: CallOrigin::Abroad(NetworkKind::Cloud),
    addresses: (1, 3),
    agent: AgentChoice::Other,
    probes: 0,
    new_routes: false,
    refused_permille: 30,
    course: EpisodeCourse::Even,
    owner: OwnerBehaviour::GoesOn,
};
const PROBED: EpisodeKind =
    EpisodeKind { span_h: 48, percent: (1_000, 5_000), calls_per_hour: 1_200, addresses: (1, 1), ..LEAK };
const LOOK_ALIKE: EpisodeKind = EpisodeKind {
    leak: false,
    origin: CallOrigin::Usual,
    agent: AgentChoice::Usual,
    refused_permille: 6,
    ..LEAK
};

/// The kinds of episodes, leaks first. Episodes are dealt in this order, round after round.
pub(crate) const KINDS: [EpisodeKind; 26] = [
    // Found in a repository, used at once by a script on rented servers.
    EpisodeKind { name: "burst_new_origin", percent: (1_000, 5_000), calls_per_hour: 1_200, ..LEAK },
    // Somebody else works with the key, about as much as its owner does.
    EpisodeKind {
        name: "second_user",
        span_h: 6,
        minutes: Some((360, 2_880)),
        percent: (60, 150),
        calls_per_hour: 6,
        origin: CallOrigin::Abroad(NetworkKind::Home),
        addresses: (1, 2),
        ..LEAK
    },
    // Little enough to drown in the owner's traffic, for days.
    EpisodeKind {
        name: "slow_drip",
        span_h: 48,
        minutes: Some((1_440, 7_200)),
        percent: (20, 60),
        calls_per_hour: 2,
        addresses: (1, 1),
        ..LEAK
    },
    // A botnet or a proxy service: each address calls a few times.
    EpisodeKind {
        name: "fan_out",
        minutes: Some((30, 120)),
        percent: (200, 800),
        calls_per_hour: 1_200,
        origin: CallOrigin::Everywhere,
        addresses: (200, 2_000),
        ..LEAK
    },
    // The thief copies all data, route by route.
    EpisodeKind {
        name: "scraping",
        minutes: Some((60, 240)),
        percent: (400, 2_000),
        calls_per_hour: 900,
        addresses: (1, 4),
        new_routes: true,
        ..LEAK
    },
    // Calls come from the owner's country at night, when the owner makes few.
    EpisodeKind {
        name: "night_use",
        span_h: 96,
        minutes: Some((1_440, 7_200)),
        percent: (100, 400),
        calls_per_hour: 12,
        origin: CallOrigin::HomeCountry(NetworkKind::Home),
        addresses: (1, 2),
        course: EpisodeCourse::Nights,
        ..LEAK
    },
    // The thief tries what the key can do.
    EpisodeKind {
        name: "probing",
        minutes: Some((10, 60)),
        percent: (100, 600),
        calls_per_hour: 300,
        addresses: (1, 2),
        new_routes: true,
        refused_permille: 800,
        ..LEAK
    },
    // A key that its owner had forgotten.
    EpisodeKind {
        name: "dormant_woken",
        minutes: Some((60, 720)),
        calls_per_hour: 200,
        owner: OwnerBehaviour::Sleeps,
        ..LEAK
    },
    // The key is revoked in the table, and the gateway still answers the thief.
    EpisodeKind {
        name: "after_revocation",
        minutes: Some((30, 360)),
        percent: (50, 300),
        calls_per_hour: 60,
        owner: OwnerBehaviour::Revokes,
        ..LEAK
    },
    // The thief tries the key, sells it or writes a script, and comes back to the same place. How much the detector
    // learns of the place meanwhile depends on the number of calls.
    EpisodeKind { name: "probed_first_1", probes: 1, ..PROBED },
    EpisodeKind { name: "probed_first_5", probes: 5, ..PROBED },
    EpisodeKind { name: "probed_first_20", probes: 20, ..PROBED },
    // The same, but little enough to drown in the owner's traffic.
    EpisodeKind {
        name: "probed_drip",
        probes: 5,
        span_h: 120,
        minutes: Some((1_440, 2_880)),
        percent: (20, 60),
        calls_per_hour: 2,
        ..PROBED
    },
    // A copied table of keys: all are tried from one place within an hour.
    EpisodeKind {
        name: "stolen_database",
        scope: EpisodeScope::Database,
        span_h: 4,
        minutes: Some((5, 15)),
        percent: (100, 400),
        calls_per_hour: 240,
        addresses: (1, 2),
        ..LEAK
    },
    // A campaign or a launch: all keys call more.
    EpisodeKind {
        name: "launch_day",
        scope: EpisodeScope::Everybody,
        minutes: Some((120, 360)),
        percent: (200, 400),
        ..LOOK_ALIKE
    },
    // A deploy breaks an API for minutes; all who call it try again.
    EpisodeKind {
        name: "retry_storm",
        scope: EpisodeScope::Api,
        minutes: Some((5, 15)),
        percent: (85, 98),
        ..LOOK_ALIKE
    },
    // A customer's product takes off.
    EpisodeKind {
        name: "ramp_up",
        span_h: 24,
        minutes: None,
        percent: (300, 800),
        calls_per_hour: 20,
        course: EpisodeCourse::Growing,
        ..LOOK_ALIKE
    },
    // A new job, exactly at the hour.
    EpisodeKind {
        name: "cron_at_the_hour",
        span_h: 6,
        minutes: None,
        percent: (50, 300),
        calls_per_hour: 50,
        course: EpisodeCourse::Hourly,
        ..LOOK_ALIKE
    },
    // The same person, abroad for some days.
    EpisodeKind {
        name: "travelling_user",
        span_h: 24,
        minutes: Some((1_440, 7_200)),
        origin: CallOrigin::Abroad(NetworkKind::Mobile),
        addresses: (2, 6),
        owner: OwnerBehaviour::Moves,
        ..LOOK_ALIKE
    },
    // The customer changes its provider or its office.
    EpisodeKind {
        name: "network_change",
        span_h: 24,
        minutes: None,
        origin: CallOrigin::HomeCountry(NetworkKind::Office),
        addresses: (1, 2),
        owner: OwnerBehaviour::Moves,
        ..LOOK_ALIKE
    },
    // More machines for more traffic, all at the usual provider.
    EpisodeKind {
        name: "autoscaling",
        minutes: Some((60, 480)),
        percent: (150, 400),
        calls_per_hour: 300,
        origin: CallOrigin::UsualNetwork,
        addresses: (20, 100),
        ..LOOK_ALIKE
    },
    // The customer tests its own limits.
    EpisodeKind {
        name: "load_test",
        minutes: Some((15, 45)),
        percent: (1_500, 5_000),
        calls_per_hour: 2_400,
        agent: AgentChoice::LoadTool,
        ..LOOK_ALIKE
    },
    // A release of the customer's software, with another client and new features.
    EpisodeKind {
        name: "upgrade",
        span_h: 24,
        minutes: None,
        agent: AgentChoice::Other,
        new_routes: true,
        owner: OwnerBehaviour::Upgrades,
        ..LOOK_ALIKE
    },
    // The customer also serves another country, from the same cloud.
    EpisodeKind {
        name: "new_region",
        span_h: 24,
        minutes: None,
        percent: (30, 100),
        calls_per_hour: 10,
        origin: CallOrigin::NewRegion,
        addresses: (2, 8),
        ..LOOK_ALIKE
    },
    // A gateway's clock stands still and then jumps: what it logs of many minutes seems to be of one.
    EpisodeKind {
        name: "clock_jump",
        scope: EpisodeScope::Everybody,
        minutes: Some((6, 21)),
        percent: (30, 80),
        course: EpisodeCourse::Backlog,
        ..LOOK_ALIKE
    },
    // The owner revoked the key and forgot a client, which is turned away.
    EpisodeKind {
        name: "forgotten_client",
        minutes: Some((360, 2_880)),
        percent: (50, 150),
        calls_per_hour: 6,
        refused_permille: 1_000,
        owner: OwnerBehaviour::Revokes,
        ..LOOK_ALIKE
    },
];
