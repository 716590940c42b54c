//! One of each kind of values that calls have: countries, systems, networks, user agents, routes.

use serde::{Deserialize, Serialize};

use super::combine::Signal;

/// One for each kind of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByKind<T> {
    pub countries: T,
    pub asns: T,
    /// Networks: /24 of IPv4, /48 of IPv6.
    pub networks: T,
    pub agents: T,
    pub routes: T,
}

impl<T> ByKind<T> {
    /// Returns all of them in order, each with the signal that is about new values of the kind.
    pub(super) fn all(&self) -> [(Signal, &T); 5] {
        [
            (Signal::Country, &self.countries),
            (Signal::Asn, &self.asns),
            (Signal::Network, &self.networks),
            (Signal::Agent, &self.agents),
            (Signal::Route, &self.routes),
        ]
    }

    /// Returns all of them in the order of [`all`](Self::all).
    pub(super) fn all_mut(&mut self) -> [&mut T; 5] {
        [&mut self.countries, &mut self.asns, &mut self.networks, &mut self.agents, &mut self.routes]
    }

    /// Returns the one of the kind whose new values a signal is about; `None` if it is about none.
    pub(super) fn of(&self, signal: Signal) -> Option<&T> {
        match signal {
            Signal::Country => Some(&self.countries),
            Signal::Asn => Some(&self.asns),
            Signal::Network => Some(&self.networks),
            Signal::Agent => Some(&self.agents),
            Signal::Route => Some(&self.routes),
            _ => None,
        }
    }
}
