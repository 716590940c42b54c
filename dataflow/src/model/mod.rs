//! Defines the data that enters the dataflow: identities, events, rows of tables and ticks. Rows that leave it are in
//! `row.rs`.

/// Implements `name`, which must name every variant of an enum.
macro_rules! impl_name {
    ($named:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $named {
            /// Returns the name that views show.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

mod event;
mod hex;
mod id;
mod owner;
mod table;
mod tick;
pub mod time;

pub(crate) use impl_name;

pub use event::{AccessEvent, CallerLocation, Country, LATENCY_UNKNOWN, NetworkClass, Position};
pub use hex::{hex, id_digits, push_hex};
pub use id::{Definition, Forgotten, KeyId, NameId, RequestId, RouteId};
pub use owner::Owner;
pub use table::{
    Allowance, KeyKind, KeyPlace, KeyRow, KeyState, LeakRow, PlanRow, Policy, SubscriptionRow, TableChange,
    TableRow,
};
pub use tick::{EventTime, Tick, TickInfo};
