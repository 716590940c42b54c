//! The thread of a gateway that is called about each action, and the order of its calls.
//!
//! [`CallQueue`] is a pure state. It calls about an action once it is ordered, and again as long as the gateway can't
//! be reached. A reinstatement is called about first. What isn't ordered any more isn't called about any more: a
//! suspension that was lifted meanwhile is left out.
//!
//! A gateway that refuses the job's credentials isn't called again about a suspension until a person approves it anew: that
//! is another request of the same action. What lets a key in, or follows its suspension, is tried again.
//!
//! Why a crash repeats at most the call that was under way: there is one thread, and what it was told is in a report
//! before the next call. Adapters look before they act, and requests of a webhook have the same id.
//!
//! Limits: a gateway that takes an action and reports nothing is called again each hour.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keytide_dataflow::{Action, ActionId, GatewayOutcome};

use super::{GatewayContext, OrdersSlot, RETRY_AFTER, RequestedAction, retry_after};

/// How long a gateway has for its own report before it is called again.
const TAKEN_MS: u64 = 3_600_000;

/// What a call led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Done,
    /// It can never be done, for this reason.
    Failed(String),
    /// The gateway refuses the job's credentials, for this reason. The request that it refused changed nothing.
    Refused(String),
    /// The gateway will report how it went.
    Taken,
    /// It is to be looked at again after so long, in milliseconds; nothing is wrong.
    Later(u64),
    /// It couldn't be done now.
    Again {
        reason: String,
        after_ms: Option<u64>,
    },
}

/// Returns an error if nothing may be changed at the gateway any more.
pub(super) type MayAct<'a> = &'a dyn Fn() -> Result<(), String>;

/// A gateway that is called.
pub(super) trait CalledGateway: Send {
    /// Does an action, if `may_act` lets it. It blocks for as long as the gateway takes.
    fn call(&mut self, action: &RequestedAction, may_act: MayAct<'_>) -> CallOutcome;
}

/// An action that is ordered.
#[derive(Clone, Debug)]
struct OrderedAction {
    action: RequestedAction,
    failures: u32,
    /// When it is called about next; `None` once it was reported.
    due_ms: Option<u64>,
}

/// The actions that are ordered, by id. Times are milliseconds since any instant.
#[derive(Debug, Default)]
struct CallQueue(BTreeMap<ActionId, OrderedAction>);

impl CallQueue {
    /// Replaces what is ordered by the newest orders.
    fn order(&mut self, requested: Vec<RequestedAction>, now_ms: u64) {
        let mut before = std::mem::take(&mut self.0);
        for action in requested {
            let (failures, due_ms) = match before.remove(&action.id) {
                Some(known) if known.action.request == action.request => (known.failures, known.due_ms),
                _ => (0, Some(now_ms)),
            };
            self.0.insert(action.id, OrderedAction { action, failures, due_ms });
        }
    }

    /// Returns the action that is due, of several the most urgent.
    fn due(&self, now_ms: u64) -> Option<&RequestedAction> {
        let due = self.0.values().filter(|of| of.due_ms.is_some_and(|due_ms| due_ms <= now_ms));
        let first = due.min_by_key(|of| {
            let is_lifting = of.action.action == Action::Reinstate;
            (!is_lifting, of.failures, of.due_ms, of.action.id)
        });
        first.map(|of| &of.action)
    }

    /// Returns when the next action is due.
    fn next_ms(&self) -> Option<u64> {
        self.0.values().filter_map(|of| of.due_ms).min()
    }

    /// Notes what a call led to.
    fn called(&mut self, id: ActionId, outcome: &CallOutcome, now_ms: u64) {
        let Some(of) = self.0.get_mut(&id) else { return };
        of.due_ms = match outcome {
            CallOutcome::Done | CallOutcome::Failed(_) | CallOutcome::Refused(_) => None,
            CallOutcome::Taken => Some(now_ms + TAKEN_MS),
            CallOutcome::Later(after_ms) => Some(now_ms + after_ms),
            CallOutcome::Again { after_ms, .. } => {
                of.failures = of.failures.saturating_add(1);
                let [_, most] = RETRY_AFTER.map(millis);
                Some(now_ms + millis(retry_after(of.failures)).max(after_ms.unwrap_or(0).min(most)))
            }
        };
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The work of the thread that calls a gateway.
pub(super) struct GatewayCaller {
    name: String,
    gateway: Box<dyn CalledGateway>,
    context: GatewayContext,
}

impl GatewayCaller {
    pub(super) fn new(name: String, gateway: Box<dyn CalledGateway>, context: GatewayContext) -> Self {
        Self { name, gateway, context }
    }

    /// Carries out orders until the end.
    pub(super) fn run(mut self, shared: &OrdersSlot) {
        let started = Instant::now();
        let now_ms = || millis(started.elapsed());
        let mut queue = CallQueue::default();
        let (mut is_away, mut is_refused) = (false, false);
        loop {
            let until = queue.next_ms().map(|due_ms| started + Duration::from_millis(due_ms));
            let (newer, ends) = shared.wait(until);
            if ends {
                return;
            }
            if let Some(orders) = newer {
                queue.order(orders.requested, now_ms());
            }
            let Some(action) = queue.due(now_ms()).cloned() else { continue };
            let may_act = || match shared.ends() {
                true => Err("the job ends".to_owned()),
                false => self.context.may_act().map_err(|error| error.to_string()),
            };
            let outcome = match self.gateway.call(&action, &may_act) {
                CallOutcome::Refused(reason) if action.action != Action::Suspend => {
                    CallOutcome::Again { reason, after_ms: None }
                }
                outcome => outcome,
            };
            queue.called(action.id, &outcome, now_ms());
            let (gateway, of_action) = (&*self.name, action.id);
            match outcome {
                CallOutcome::Done => {
                    is_refused = false;
                    self.context.report(action.id, &self.name, GatewayOutcome::Done);
                }
                CallOutcome::Failed(reason) => {
                    tracing::error!(gateway, action = %of_action, "the gateway can't do the action: {reason}");
                    self.context.report(action.id, &self.name, GatewayOutcome::Failed(reason));
                }
                CallOutcome::Refused(reason) => {
                    if !std::mem::replace(&mut is_refused, true) {
                        tracing::error!(
                            gateway,
                            action = %of_action,
                            "the gateway refuses the job, so its actions are held: {reason}"
                        );
                    }
                    self.context.report(action.id, &self.name, GatewayOutcome::Refused(reason));
                }
                CallOutcome::Taken | CallOutcome::Later(_) => {}
                CallOutcome::Again { .. } if is_away || shared.ends() => continue,
                CallOutcome::Again { reason, .. } => {
                    is_away = true;
                    tracing::error!(
                        gateway,
                        action = %of_action,
                        "the gateway can't act now, which is tried again: {reason}"
                    );
                    continue;
                }
            }
            if std::mem::take(&mut is_away) {
                tracing::info!(gateway, "the gateway answers again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::IncidentId;
    use keytide_dataflow::model::KeyId;

    use super::*;

    fn action(id: u128, action: Action) -> RequestedAction {
        RequestedAction {
            id: ActionId(id),
            request: 1,
            action,
            key: KeyId(7),
            key_id: KeyId(7).to_string(),
            incident: IncidentId(9),
            why: String::new(),
            consumer: String::new(),
            credential: String::new(),
            undo: None,
        }
    }

    fn again(after_ms: Option<u64>) -> CallOutcome {
        CallOutcome::Again { reason: String::new(), after_ms }
    }

    fn due(queue: &CallQueue, now_ms: u64) -> Option<u128> {
        queue.due(now_ms).map(|action| action.id.0)
    }

    #[test]
    fn an_action_is_called_about_until_it_is_done_and_never_after() {
        let mut queue = CallQueue::default();
        let one = action(1, Action::Suspend);
        queue.order(vec![one.clone()], 5);
        assert_eq!((due(&queue, 4), due(&queue, 5)), (None, Some(1)));
        let mut now_ms = 5;
        for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            queue.called(one.id, &again(None), now_ms);
            // Orders of later ticks change nothing about it.
            queue.order(vec![one.clone()], now_ms);
            now_ms += wait_ms;
            assert_eq!((queue.next_ms(), due(&queue, now_ms - 1)), (Some(now_ms), None));
        }
        queue.called(one.id, &again(Some(3_600_000)), now_ms);
        assert_eq!(queue.next_ms(), Some(now_ms + 60_000), "a receiver can't ask for more than a minute");
        queue.called(one.id, &CallOutcome::Taken, now_ms);
        assert_eq!(queue.next_ms(), Some(now_ms + 3_600_000));
        for outcome in [CallOutcome::Done, CallOutcome::Failed("no".to_owned())] {
            queue.order(vec![one.clone()], 0);
            queue.called(one.id, &outcome, 0);
            // Ticks that don't know of the report still order it.
            queue.order(vec![one.clone()], 1);
            assert_eq!((queue.next_ms(), due(&queue, u64::MAX)), (None, None));
            queue.order(Vec::new(), 2);
            assert!(queue.0.is_empty());
        }
    }

    #[test]
    fn what_the_gateway_refused_is_called_about_again_only_if_it_is_requested_anew() {
        let mut queue = CallQueue::default();
        let one = action(1, Action::Suspend);
        queue.order(vec![one.clone()], 0);
        queue.called(one.id, &CallOutcome::Refused("wrong token".to_owned()), 0);
        queue.order(vec![one.clone()], 1);
        assert_eq!(due(&queue, u64::MAX), None);
        // One tick may have the report and the approval, so that the orders never lacked the action.
        queue.order(vec![RequestedAction { request: 3, ..one }], 2);
        assert_eq!(due(&queue, 2), Some(1));
    }

    #[test]
    fn a_reinstatement_overtakes_what_waits_and_what_is_lifted_is_left_out() {
        let mut queue = CallQueue::default();
        let (one, other) = (action(1, Action::Suspend), action(2, Action::Suspend));
        queue.order(vec![one.clone(), other.clone()], 0);
        queue.called(one.id, &again(None), 0);
        assert_eq!(due(&queue, 10_000), Some(2), "what failed less often comes first");
        let lifts = action(3, Action::Reinstate);
        queue.order(vec![one, other, lifts.clone()], 10_000);
        assert_eq!(due(&queue, 10_000), Some(3));
        queue.called(lifts.id, &CallOutcome::Later(5_000), 10_000);
        assert_eq!(due(&queue, 14_999), Some(2));
        assert_eq!(due(&queue, 15_000), Some(3));
        queue.order(vec![lifts], 15_000);
        queue.called(ActionId(3), &CallOutcome::Done, 15_000);
        assert_eq!(queue.next_ms(), None, "the suspensions were withdrawn");
    }
}
