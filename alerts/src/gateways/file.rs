//! The thread of a gateway that reads the keys to refuse from a file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use keytide_dataflow::GatewayOutcome;

use super::deny_list::DenyList;
use super::{GatewayContext, Orders, OrdersSlot, retry_after};

/// How often a deny list is compared with what it should be.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Writes the deny list of a gateway.
pub(super) struct Writer {
    name: String,
    list: DenyList,
    context: GatewayContext,
}

impl Writer {
    pub(super) fn new(name: String, path: PathBuf, context: GatewayContext) -> Self {
        Self { name, list: DenyList::new(path), context }
    }

    /// Carries out orders until the end.
    pub(super) fn run(self, shared: &OrdersSlot) {
        let mut orders: Option<Orders> = None;
        let mut until = None;
        let mut failures = 0_u32;
        loop {
            let (newer, ends) = shared.wait(until);
            let is_new = newer.is_some();
            orders = newer.or(orders);
            let Some(of) = &mut orders else {
                if ends {
                    return;
                }
                continue;
            };
            match self.carry_out(of) {
                Ok(has_changed) => {
                    if has_changed && !is_new && failures == 0 {
                        tracing::warn!(
                            gateway = self.name,
                            path = %self.list.path().display(),
                            "somebody changed the deny list, which is written again: only the job may write it"
                        );
                    }
                    failures = 0;
                    until = Some(Instant::now() + LOOK_EVERY);
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::error!(
                            gateway = self.name,
                            path = %self.list.path().display(),
                            "the deny list can't be written, keys stay as they were; it is tried again: {error}"
                        );
                    }
                    failures += 1;
                    until = Some(Instant::now() + retry_after(failures));
                }
            }
            if ends {
                return;
            }
        }
    }

    /// Makes the file what it should be, and reports the actions that this does. Returns whether it was otherwise.
    fn carry_out(&self, orders: &mut Orders) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let is_right = self.list.holds(&orders.denied)?;
        if !is_right {
            self.context.may_act()?;
            self.list.write(&orders.denied)?;
        }
        for requested in orders.requested.drain(..) {
            self.context.report(requested.id, &self.name, GatewayOutcome::Done);
        }
        Ok(!is_right)
    }
}
