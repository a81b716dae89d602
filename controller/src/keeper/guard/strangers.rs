//! Tests what a local user without any right can do between a guard and the keeper that comes after it. Only root can
//! play such a user.

use super::tests::memory;
use super::*;
use crate::keeper::names::{self, stranger::Stranger};

#[test]
fn a_stranger_under_the_guards_name_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let for_ever = memory(Clock::Boottime.now() + Duration::from_secs(3_600), 9);
    let lie = format!("{}\n", serde_json::to_string(&Some(for_ever)).unwrap());
    let Some(_stranger) = Stranger::who_holds(&names::guard(directory.path()), &lie) else { return };
    assert!(Standing::find(directory.path()).is_none(), "whoever holds the name is asked who it is");
    // A guard that is posted meanwhile cannot be found, and is relieved by the state file as ever.
    assert!(handover::offer(directory.path(), None, Relief::new().unwrap()).is_err());
}

#[test]
fn a_stranger_relieves_no_guard() {
    let directory = tempfile::tempdir().unwrap();
    let relief = Relief::new().unwrap();
    let believed = memory(Clock::Boottime.now() + Duration::from_secs(60), 7);
    handover::offer(directory.path(), Some(believed.clone()), Arc::clone(&relief)).unwrap();
    let Some(_stranger) = Stranger::who_says(&names::guard(directory.path()), "relieved\n") else { return };
    assert!(!relief.has_come());
    let standing = Standing::find(directory.path()).expect("it still answers a keeper");
    assert_eq!(standing.memory, Some(believed));
}
