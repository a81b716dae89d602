//! Tests what people are told though nothing is done about it.

use zsha_runtime::lease::Late;

use super::*;
use crate::plan::news;

fn news(world: &World, notes: &mut Notes) -> Option<String> {
    let mut all = news::news(world, &mut notes.told);
    assert!(all.len() <= 1, "{all:?}");
    all.pop().map(|news| format!("{}: {}", news.reason, news.message))
}

fn with(count: Option<u64>, local: LocalVm) -> World {
    let mut world = super::world(1, Some(1), VmPhase::Running, local);
    let Observed::Known(verdict) = &mut world.lease else { panic!("no lease") };
    let late = |count| Late { count, gap: Duration::from_millis(5_210), of: Duration::from_secs(8) };
    verdict.late = count.map(late);
    world
}

#[test]
fn each_late_renewal_is_told_once_where_the_vm_is() {
    let mut notes = Notes::default();
    assert_eq!(news(&with(Some(4), RUNNING), &mut notes), None, "it was before this controller began");
    assert_eq!(news(&with(Some(4), RUNNING), &mut notes), None);
    let told = news(&with(Some(6), RUNNING), &mut notes).unwrap();
    assert!(told.contains("for 5.2 s; after 8 s"), "{told}");
    assert_eq!(news(&with(Some(6), RUNNING), &mut notes), None);
    assert_eq!(news(&with(Some(7), DIED), &mut notes), None, "nothing was in danger");
}

#[test]
fn a_keeper_started_anew_counts_anew() {
    let mut notes = Notes::default();
    news(&with(Some(4), RUNNING), &mut notes);
    assert_eq!(news(&with(None, RUNNING), &mut notes), None);
    assert!(news(&with(Some(1), RUNNING), &mut notes).is_some());
}

fn paused(reason: PauseReason) -> World {
    with(None, LocalVm::Paused { reason, generation: 1 })
}

#[test]
fn a_guest_that_stands_still_is_told_once_for_each_reason() {
    let mut notes = Notes::default();
    let told = news(&paused(PauseReason::IoError), &mut notes).unwrap();
    assert!(told.starts_with("Paused: the guest on n1 is paused, because its disk"), "{told}");
    assert_eq!(news(&paused(PauseReason::IoError), &mut notes), None);
    assert!(news(&paused(PauseReason::Other), &mut notes).unwrap().contains("virsh resume"));
    news(&with(None, RUNNING), &mut notes);
    assert!(news(&paused(PauseReason::Other), &mut notes).is_some(), "once more, after it ran");
}

#[test]
fn what_zsha_itself_has_paused_is_no_news_nor_is_another_nodes() {
    let mut notes = Notes::default();
    let mut starting = paused(PauseReason::Asked);
    vm(&mut starting).record.phase = VmPhase::Starting;
    let mut not_mine = paused(PauseReason::IoError);
    vm(&mut not_mine).record.owner = Some(Owner { node: node(2), epoch: 1 });
    for world in [starting, not_mine, paused(PauseReason::Incoming)] {
        assert_eq!(news(&world, &mut notes), None);
    }
    assert!(news(&paused(PauseReason::Asked), &mut notes).is_some(), "it ran, and somebody paused it");
}
