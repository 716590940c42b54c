//! Which routes a key calls, against which it used to call.
//!
//! G = 2 sum o ln(o/e) over the key's routes and one class for all others (Woolf, 1957), with o the window's calls
//! and e those expected by the key's own shares, each smoothed by half a call. Under the key's own habits G follows
//! a chi-square distribution of as many degrees of freedom d as there are classes but one, whose tail is bounded
//! (Laurent and Massart, 2000, lemma 1): P(G >= d + 2 sqrt(d t) + 2 t) <= e^-t. Solved for t, surprise is t/ln 2 bits.
//!
//! Limits: 16 routes, the first that were called often; windows of fewer than 50 calls say nothing, nor does a key
//! with fewer than 500 calls of history.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Bits, decay};

const MOST: usize = 16;
const LEAST_CALLS: u64 = 50;
const LEAST_HISTORY: f64 = 500.0;

/// How a key's calls spread over routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// (route, calls), in the order of routes.
    routes: SmallVec<[(u64, f64); 1]>,
    other: f64,
    updated_ms: u64,
}

impl Mix {
    fn total(&self) -> f64 {
        self.other + self.routes.iter().map(|route| route.1).sum::<f64>()
    }

    /// How unusual a window's routes are, each with its calls, in the order of routes.
    #[must_use]
    pub fn bits(&self, window: &[(u64, u32)]) -> Bits {
        let calls: u64 = window.iter().map(|route| u64::from(route.1)).sum();
        // Nearly all windows have fewer calls: no need to add up the history.
        if calls < LEAST_CALLS {
            return Bits::NONE;
        }
        let history = self.total();
        if history < LEAST_HISTORY {
            return Bits::NONE;
        }
        let classes = self.routes.len() as f64 + 1.0;
        let scale = calls as f64 / (history + 0.5 * classes);
        let mut elsewhere = calls;
        let mut sum = 0.0;
        let mut add = |seen: u64, before: f64| {
            if seen > 0 {
                sum += seen as f64 * libm::log(seen as f64 / ((before + 0.5) * scale));
            }
        };
        for (route, before) in &self.routes {
            let seen =
                window.binary_search_by_key(route, |entry| entry.0).map_or(0, |at| u64::from(window[at].1));
            elsewhere -= seen;
            add(seen, *before);
        }
        add(elsewhere, self.other);
        Bits::new(tail(2.0 * sum, classes - 1.0) / std::f64::consts::LN_2)
    }

    /// Learns the routes of a window with their calls.
    pub fn learn(&mut self, window: &[(u64, u32)], now_ms: u64) {
        let kept = decay::WEEK.left(now_ms.saturating_sub(self.updated_ms));
        self.updated_ms = now_ms;
        self.other *= kept;
        self.routes.iter_mut().for_each(|route| route.1 *= kept);
        for (route, calls) in window {
            match self.routes.binary_search_by_key(route, |entry| entry.0) {
                Ok(at) => self.routes[at].1 += f64::from(*calls),
                Err(at) if self.routes.len() < MOST => self.routes.insert(at, (*route, f64::from(*calls))),
                Err(_) => self.other += f64::from(*calls),
            }
        }
    }
}

/// t of the module's bound: at most e^-t is the probability of `g` or more.
fn tail(g: f64, degrees: f64) -> f64 {
    // d + 2 sqrt(d t) + 2 t = g is quadratic in sqrt(t).
    if g <= degrees {
        return 0.0;
    }
    let root = (2.0 * g - degrees).sqrt() - degrees.sqrt();
    (root * root / 4.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_solves_its_equation() {
        for (degrees, t) in [(1.0_f64, 3.0_f64), (16.0, 20.0), (0.0, 5.0)] {
            let g = degrees + 2.0 * (degrees * t).sqrt() + 2.0 * t;
            assert!((tail(g, degrees) - t).abs() < 1e-9, "{degrees} {t}");
        }
        assert_eq!(tail(3.0, 4.0), 0.0);
    }

    #[test]
    fn habits_say_nothing_and_a_walk_through_all_routes_does() {
        let mut mix = Mix::default();
        let usual = [(1, 60), (2, 30), (3, 10)];
        for minute in 0..100 {
            mix.learn(&usual, minute * 60_000);
        }
        assert!(mix.bits(&usual) < Bits::new(0.1), "{:?}", mix.bits(&usual));
        assert!(mix.bits(&[(1, 30), (2, 55), (3, 15)]) > Bits::new(10.0));
        let walk: Vec<(u64, u32)> = (10..70).map(|route| (route, 1)).collect();
        assert!(mix.bits(&walk) > Bits::new(100.0));
        assert_eq!(mix.bits(&walk[..49]), Bits::NONE);
        assert_eq!(Mix::default().bits(&walk), Bits::NONE);
    }
}
