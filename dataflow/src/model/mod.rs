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

/// Implements how an id of 128 bits is written: as 32 hexadecimal digits in lower case.
macro_rules! impl_hash_id {
    ($id:ident) => {
        impl $id {
            /// Returns the identity that is written so, with nothing else.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                $crate::model::id_of_digits(text).map(Self)
            }
        }

        impl std::fmt::Display for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl std::fmt::Debug for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
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

pub(crate) use {impl_hash_id, impl_name};

pub use event::{AccessEvent, CallerLocation, Country, LATENCY_UNKNOWN, NetworkClass, Position};
pub use hex::{hex, id_digits, id_of_digits, push_hex};
pub use id::{Definition, Forgotten, KeyId, NameId, RequestId, RouteId};
pub use owner::Owner;
pub use table::{
    Allowance, KeyKind, KeyPlace, KeyRow, KeyState, LeakRow, PlanFees, PlanRow, Policy, PriceRow,
    QuotaHolder, QuotaRow, SubscriptionRow, TableChange, TableRow, TokenDigest, TokenRole, TokenRow,
};
pub use tick::{EventTime, Tick, TickInfo};
