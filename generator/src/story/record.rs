//! A call of one key by its habits, and its answer.

use keytide_dataflow::model::KeyState;

use crate::draw::Draw;
use crate::world::network::ClientAddress;
use crate::world::population::Population;

/// One call in this number has no key: public routes, forgotten headers.
const ANONYMOUS: u32 = 100;

/// An answered call. Indices are of the population; times are in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallRecord {
    pub(crate) request_id: u128,
    pub(crate) time: u64,
    pub(crate) key: Option<u32>,
    pub(crate) client: ClientAddress,
    pub(crate) route: u32,
    /// The number in place of `{id}` in the path.
    pub(crate) item: u32,
    pub(crate) agent: u32,
    pub(crate) status: u16,
    pub(crate) latency_us: u32,
    pub(crate) bytes_in: u32,
    pub(crate) bytes_out: u32,
}

/// A call that isn't answered yet, with the status that it will get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallRequest {
    pub(crate) id: u128,
    pub(crate) time: u64,
    pub(crate) key: Option<u32>,
    pub(crate) client: ClientAddress,
    pub(crate) route: u32,
    /// The usual user agent, and the one of one call in five.
    pub(crate) agents: [u32; 2],
    pub(crate) status: u16,
}

impl CallRecord {
    /// Draws a call at `time`, in a world without rhythms or episodes.
    pub(crate) fn draw(population: &Population, time: u64, draw: &mut Draw) -> Self {
        let id = draw.wide();
        let caller = population.caller(draw);
        let anonymous = anonymous(draw);
        let key = &population.keys[caller as usize];
        let client = key.clients.start + draw.habit(key.clients.len() as u32);
        let route = population.usual_route(key, draw);
        // One in three calls without a key is of a public route and isn't refused.
        let refused = if anonymous { !draw.once_in(3) } else { key.state != KeyState::Active };
        let success = population.routes[route as usize].success;
        let request = CallRequest {
            id,
            time,
            key: (!anonymous).then_some(caller),
            client: population.clients[client as usize],
            route,
            agents: key.agents,
            status: if refused { 401 } else { status(success, draw.below(1_000)) },
        };
        Self::of(request, population, draw)
    }

    /// Answers a call: draws its latency and sizes by its status.
    pub(crate) fn of(request: CallRequest, population: &Population, draw: &mut Draw) -> Self {
        let CallRequest { id, time, key, client, route, agents, status } = request;
        let usual = &population.routes[route as usize];
        let sized = |median, draw: &mut Draw| population.spread.draw(median, draw);
        // A refusal costs little; a server that fails has often waited for another.
        let (latency_us, bytes_out) = match status {
            200..400 => (sized(usual.latency_us, draw), sized(usual.bytes_out, draw)),
            400..500 => (sized(2_000, draw), sized(180, draw)),
            _ => (sized(usual.latency_us * 4, draw), sized(180, draw)),
        };
        Self {
            request_id: id,
            time,
            key,
            client,
            route,
            item: draw.below(100_000) + 1,
            agent: agents[usize::from(draw.once_in(5))],
            status,
            latency_us,
            bytes_in: sized(usual.bytes_in, draw),
            bytes_out: if status == 204 { 0 } else { bytes_out },
        }
    }
}

/// Decides whether a call has no key.
pub(crate) fn anonymous(draw: &mut Draw) -> bool {
    draw.once_in(ANONYMOUS)
}

/// Returns the status for a draw from a thousand. On an ordinary day 0.5 % are server errors, 3 % the caller's.
pub(crate) fn status(success: u16, permille: u32) -> u16 {
    match permille {
        0..2 => 500,
        2..3 => 502,
        3..4 => 503,
        4..5 => 504,
        5..10 => 400,
        10..13 => 401,
        13..16 => 403,
        16..28 => 404,
        28..30 => 409,
        30..35 => 429,
        _ => success,
    }
}
