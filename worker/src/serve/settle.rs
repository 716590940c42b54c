//! The ends of reservations: settlements and rollbacks.
//!
//! With `[api.settlements]` a settlement is first a record of a source, and the answer comes once it is stored. So its use is
//! billed whatever happens to this process, and once however often it is sent. Then it ends the reservation.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use keytide_billing::BilledUse;
use keytide_connectors::settlement::{Settlement, SettlementWriter};
use keytide_dataflow::model::id_of_digits;
use tokio::sync::oneshot;

use super::bodies::{ActualBody, MOST_HITS, Members, RollbackBody, SettleBody};
use super::ledger::ReservationId;
use super::reply::{ApiState, Sent, Shared, refuse, refuse_with, with_status};

const NO_RESERVATION: &str =
    "no such reservation is open: it was ended, is older than 60 s, or is of an earlier life of the job";
const NO_SETTLEMENTS: &str =
    "the job records no settlements: leave key_hash and key_id out, or add [api.settlements]";
const NO_KEY: &str = "the job records settlements: name the key by one of key_hash and key_id";
const NOT_STORED: &str = "the settlement couldn't be stored: send it again, it counts once";

/// Ends a reservation with what was used.
pub(super) async fn answer_settle(State(state): Shared, Sent(_, body): Sent<SettleBody>) -> Response {
    let SettleBody { reservation, actual, key_hash, key_id } = body;
    let actual = actual.map_or_else(ActualBody::default, |Members(actual)| actual);
    if actual.hits.is_some_and(|hits| hits > MOST_HITS) {
        return refuse(StatusCode::BAD_REQUEST, "hits must be a whole number of at most 2^63");
    }
    let id = id_of_digits(&reservation).map(ReservationId);
    let Some(writer) = &state.settlements else {
        if key_hash.is_some() || key_id.is_some() {
            return refuse(StatusCode::BAD_REQUEST, NO_SETTLEMENTS);
        }
        return ended(&state, id, |reserved| actual.of(reserved));
    };
    let ((Some(key), None) | (None, Some(key))) = (key_hash, key_id) else {
        return refuse(StatusCode::BAD_REQUEST, NO_KEY);
    };
    let Some(id) = id else {
        return refuse(StatusCode::BAD_REQUEST, "reservation must be the one of an answer to a check");
    };
    // One that has ended, or is of an earlier life, is recorded all the same: its call was made.
    let reserved = state.ledger.reserved(id).unwrap_or(BilledUse { calls: 1, ..BilledUse::default() });
    let used = actual.of(reserved);
    let BilledUse { calls, units, bytes_in, bytes_out } = used;
    let at_ms = (state.clock)();
    let settlement = Settlement { reservation: id.0, at_ms, key: &key, calls, units, bytes_in, bytes_out };
    if let Err(refused) = recorded(writer, &settlement).await {
        return *refused;
    }
    let is_open = state.ledger.settle(id, |_| used, (state.clock)());
    with_status(StatusCode::OK, &serde_json::json!({ "ended": is_open, "recorded": true }))
}

/// Waits until a settlement is stored.
async fn recorded(writer: &SettlementWriter, settlement: &Settlement<'_>) -> Result<(), Box<Response>> {
    let (sender, stored) = oneshot::channel();
    // The client may be gone.
    let done = move |is_stored| {
        let _ = sender.send(is_stored);
    };
    if let Err(error) = writer.send(settlement, Box::new(done)) {
        return Err(Box::new(refuse_with(StatusCode::BAD_REQUEST, &error.to_string())));
    }
    match stored.await {
        Ok(true) => Ok(()),
        _ => Err(Box::new(refuse(StatusCode::SERVICE_UNAVAILABLE, NOT_STORED))),
    }
}

/// Ends a reservation whose calls weren't made.
pub(super) async fn answer_rollback(State(state): Shared, Sent(_, body): Sent<RollbackBody>) -> Response {
    ended(&state, id_of_digits(&body.reservation).map(ReservationId), |_| BilledUse::default())
}

fn ended(
    state: &ApiState,
    id: Option<ReservationId>,
    actual: impl FnOnce(BilledUse) -> BilledUse,
) -> Response {
    if id.is_some_and(|id| state.ledger.settle(id, actual, (state.clock)())) {
        with_status(StatusCode::OK, &serde_json::json!({ "ended": true, "recorded": false }))
    } else {
        refuse(StatusCode::NOT_FOUND, NO_RESERVATION)
    }
}
