//! Servers of gateways that behave as the real ones do, traps included, and that fail when they are told to.

#![allow(dead_code, reason = "the tests of adapters and those of the program each need a part")]

mod apisix;
mod aws;
mod failing;
mod kong;
mod server;

pub(crate) use apisix::ApisixStandin;
pub(crate) use aws::AwsStandin;
pub(crate) use failing::{Failing, Fate, Standin};
pub(crate) use kong::KongStandin;
pub(crate) use server::{Asked, Server, answer, failure};
