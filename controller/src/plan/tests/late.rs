use zsha_runtime::lease::Late;

use super::*;
use crate::plan::late::news;

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
