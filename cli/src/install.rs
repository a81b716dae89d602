//! zsha onto the nodes of a document over SSH, and off them again. `commands/install.rs` and `commands/uninstall.rs` know
//! the order; here are its parts, in the order they are met.
//!
//! A node is asked what it is (`facts`), judged (`preflight`), and compared with what belongs there (`layout`); what
//! differs is what is to be done (`plan`), and is done (`steps`). Only `ssh` leaves the process.

pub(crate) mod login;
pub(crate) mod ssh;

pub(crate) mod facts;
pub(crate) mod given;
pub(crate) mod layout;
pub(crate) mod preflight;

pub(crate) mod peers;
pub(crate) mod plan;

pub(crate) mod acl;
pub(crate) mod agent;
pub(crate) mod ceph;
pub(crate) mod nodes;
pub(crate) mod steps;
pub(crate) mod told;
pub(crate) mod waits;

#[cfg(test)]
pub(crate) mod testing;
