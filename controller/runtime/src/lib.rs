//! kube-runtime as its users know it, over Consul instead of an API server. It knows keys, records and leases; it
//! knows nothing of how a virtual machine is run, of libvirt or of command lines. `client` is for whoever is no node.

pub mod backoff;
pub mod client;
pub mod clock;
pub mod controller;
pub mod events;
pub mod history;
pub mod lease;
pub mod planted;
pub mod predicates;
pub mod queue;
pub mod reflector;
pub mod store;
pub mod wait;
pub mod watcher;

pub use clock::{Clock, Moment};
pub use controller::{Action, Controller};
pub use store::Store;
pub use wait::await_condition;
pub use watcher::watcher;
