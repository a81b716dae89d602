//! The daemon: desired -> observe -> plan -> act -> status, in that order of reading.
//!
//! `reconcile` knows the order; `world` is all that may be looked at; `observe` looks and decides nothing; `plan`
//! decides and does nothing; `act` does and decides nothing; `status` is computed. The edges are `hypervisor`,
//! `host`, `keeper` and `api`.

pub mod reconcile;

pub mod desired;
pub mod guest;
pub mod in_force;
pub mod intents;
pub mod observed;
pub mod views;
pub mod world;

pub mod observe;
pub mod plan;

pub mod act;
pub mod status;

mod accounts;
pub mod dev;
pub mod embedded;
mod errors;
mod heard;
mod one_thread;
pub mod planted;
pub mod run;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub mod host;
pub mod hypervisor;
pub mod keeper;

pub mod api;
pub mod leave;
pub mod limits;
pub mod logs;
pub mod outer;
pub mod page;
pub mod settings;
