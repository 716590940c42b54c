//! Answers at request time: may this key call now, and how do quotas stand?

pub mod ledger;
