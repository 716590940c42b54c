//! Writes what plans cost and how much may be used: the tables plans, prices and quotas.
//!
//! Plans and prices are the same in every world, and show each model of a price. Quotas are sized by the calls that a
//! subscription makes in the mean, so a few of the busiest use theirs up in a world of any size. Some subscriptions have
//! a quota of their own, and one whose key is stolen at a set time: its thief uses it up.

use std::fmt::Write as _;

use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};

use crate::draw::Draw;
use crate::story::World;
use crate::world::population::{PLANS, subscription_id};
use crate::world::settings::WorldSettings;

/// Currency, base fee, minimum and maximum of each plan.
const FEES: [&str; PLANS.len()] = ["EUR,0,,", "EUR,9,,", "EUR,49,,500", "EUR,199,,", "USD,1500,2000,"];

/// The rows of prices: a unit price with calls that cost nothing, tiers, volumes beside bytes, and packages.
const PRICES: &str = "plan,item,metric,model,unit,up_to,unit_price,included,package
starter,calls,calls,unit,,,0.002,500,
team,calls,calls,graduated,,1000,0,,
team,calls,calls,graduated,,10000,0.001,,
team,calls,calls,graduated,,100000,0.0008,,
team,calls,calls,graduated,,,0.0005,,
business,calls,calls,volume,,1000000,0.006,500,
business,calls,calls,volume,,,0.004,,
business,egress,bytes_out,unit,GiB,,0.10,1,
enterprise,calls,calls,package,,,400,,1000000
enterprise,traffic,bytes,graduated,GiB,1024,0.08,,
enterprise,traffic,bytes,graduated,GiB,,0.05,,
";

const QUOTA_COLUMNS: &str = "plan,subscription,metric,period,limit,hard,notify\n";
/// The quotas of the plans whose limits grow with the calls of the world.
const QUOTAS: [PlanQuota; 3] = [
    PlanQuota { plan: 0, metric: "calls", period: "month", times: 2, hard: true, notify: "80;90;100" },
    PlanQuota { plan: 1, metric: "calls", period: "day", times: 4, hard: false, notify: "" },
    PlanQuota {
        plan: 2,
        metric: "bytes_out",
        period: "billing",
        times: 16_000,
        hard: false,
        notify: "50;80;100",
    },
];
/// The business plan's quota, an amount.
const QUOTA_OF_COST: &str = "business,,cost,billing,5000,false,80;100\n";

/// One subscription in this number has a quota of its own.
const OWN_QUOTA: u32 = 12;
const OWN_PERIODS: [&str; 3] = ["day", "month", "billing"];
/// Own limits as quarters of the calls that a subscription makes in the mean.
const OWN_QUARTERS: [u64; 4] = [1, 4, 16, 64];
const OWN_NOTIFY: [&str; 4] = ["", "50;75;100", "90", "none"];

/// The mean number of keys of a subscription.
const KEYS_PER_SUBSCRIPTION: u32 = 2;
/// The part of its quota, in percent, that the subscription of a stolen key has used when the theft's first minute ends.
const STOLEN_PERCENT: u64 = 86;

/// A quota of a plan.
struct PlanQuota {
    /// The plan, as an index in [`PLANS`].
    plan: usize,
    metric: &'static str,
    period: &'static str,
    /// The limit, as a multiple of the calls that a subscription makes in the mean.
    times: u64,
    hard: bool,
    notify: &'static str,
}

/// Returns the table of plans.
pub(super) fn plans() -> String {
    let mut csv = "id,name,policy,currency,base_fee,minimum,maximum\n".to_owned();
    for ((id, name, policy), fees) in PLANS.into_iter().zip(FEES) {
        csv.extend([id, ",", name, ",", policy, ",", fees, "\n"]);
    }
    csv
}

/// Returns the table of prices.
pub(super) fn prices() -> &'static str {
    PRICES
}

/// Returns the table of quotas.
pub(super) fn quotas(world: &World) -> anyhow::Result<String> {
    let settings = &world.settings;
    let mut csv = QUOTA_COLUMNS.to_owned();
    for PlanQuota { plan, metric, period, times, hard, notify } in QUOTAS {
        let limit = round(mean_calls(settings, period) * times);
        writeln!(csv, "{},,{metric},{period},{limit},{hard},{notify}", PLANS[plan].0)?;
    }
    csv.push_str(QUOTA_OF_COST);

    let stolen = world.stolen_subscription();
    // A stream of its own, so that what other tables have doesn't depend on quotas.
    let mut draw = Draw::new(settings.seed, 7);
    for index in (0..).take(world.population.subscriptions.len()) {
        if !draw.once_in(OWN_QUOTA) || stolen == Some(index) {
            continue;
        }
        let period = OWN_PERIODS[draw.below(OWN_PERIODS.len() as u32) as usize];
        let quarters = OWN_QUARTERS[draw.below(OWN_QUARTERS.len() as u32) as usize];
        let limit = round(mean_calls(settings, period) * quarters / 4);
        let notify = OWN_NOTIFY[draw.below(OWN_NOTIFY.len() as u32) as usize];
        writeln!(csv, ",{},calls,{period},{limit},{},{notify}", subscription_id(index), draw.once_in(2))?;
    }
    if let Some((index, leak)) = stolen.zip(settings.leak) {
        let used = world.calls_of_stolen_key(leak.from_ms.next_multiple_of(MINUTE_MS));
        let limit = to_two_digits(used * 100 / STOLEN_PERCENT);
        writeln!(csv, ",{},calls,billing,{limit},true,80;90;100", subscription_id(index))?;
    }
    Ok(csv)
}

/// Returns the calls that a subscription makes in the mean in a period, or in the run if that is shorter.
fn mean_calls(settings: &WorldSettings, period: &str) -> u64 {
    let period_ms = if period == "day" { DAY_MS } else { 30 * DAY_MS };
    let calls = settings.quota_calls.unwrap_or_else(|| settings.events.get());
    let subscriptions = (settings.keys / KEYS_PER_SUBSCRIPTION).max(1);
    let calls = u128::from(calls) * u128::from(period_ms.min(settings.span_ms));
    let mean = calls / u128::from(settings.span_ms) / u128::from(subscriptions);
    u64::try_from(mean).unwrap_or(u64::MAX >> 16).min(u64::MAX >> 16)
}

/// Rounds down to 1, 2 or 5 and zeros, as limits of plans are.
fn round(number: u64) -> u64 {
    let ten = 10_u64.pow(number.checked_ilog10().unwrap_or(0));
    match number / ten {
        0 | 1 => ten,
        2..5 => 2 * ten,
        _ => 5 * ten,
    }
}

/// Rounds down to two digits and zeros.
fn to_two_digits(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (number / unit * unit).max(1)
}
