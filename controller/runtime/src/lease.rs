//! The node lease, as values: [`Holder`] is the side that keeps it, [`Observer`] the side that waits until it may be
//! taken away. Neither reads a clock, waits, or talks to another process: a driver asks for the next step, does it, and
//! tells the outcome.
//!
//! The argument is in docs/never-two-copies.md. What this file must keep true:
//!
//! 1. A lease is valid until `time of SENDING the last renewal that was answered with success + F`. A lost reply,
//!    an error and a read-back count for nothing.
//! 2. The record that grants F also carries the D that others wait, and `D >= F + K + margin`. When F shrinks, the
//!    deadline shrinks *before* the record that announces the smaller D is sent.
//! 3. A new incarnation begins only when no copy of the VM is alive on this node. So a later epoch of a node is
//!    proof that the copies of its earlier epochs are dead.
//! 4. A fence is a cas on exactly the index that was seen unchanged for D. If the owner renewed, it fails.

mod expectation;
mod holder;
mod observer;

pub use expectation::{Expectation, Expected};
pub use holder::{Attempt, Copies, Holder, Identity, Inputs, Late, Memory, Next, StepBack};
pub use observer::{Observer, Sight};

#[cfg(test)]
mod tests;
