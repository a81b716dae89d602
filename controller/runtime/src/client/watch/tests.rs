//! How fresh a lease is to whoever goes on looking.

use jiff::Timestamp;
use serde_json::json;
use zsha_crds::records::{LeaseRecord, LeaseTimings};

use super::*;

fn view(seq: u64, renewed_at: i64, now: i64) -> ClusterView {
    let at = |second| Timestamp::from_second(second).unwrap();
    let lease: LeaseRecord = serde_json::from_value(json!({
        "node": "nfs-1", "incarnation": Uuid::nil(), "epoch": 1, "seq": seq, "state": "Held", "machineId": "m",
        "bootId": "b", "controllerAlive": true, "renewedAt": at(renewed_at), "timings": LeaseTimings::BALANCED,
    }))
    .unwrap();
    let mut view = ClusterView::empty(ClusterName::new("prod").unwrap(), at(now));
    view.lease_ages.insert(lease.node.clone(), LeaseSight::by_wall_clock(&lease, at(now)));
    view.leases.insert(lease.node.clone(), lease);
    view
}

fn sight(sightings: &mut Sightings, mut view: ClusterView, now: u64) -> LeaseSight {
    sightings.judge(&mut view, Moment::from_millis(now * 1000));
    view.lease_ages.into_values().next().unwrap()
}

#[test]
fn a_lease_under_watch_is_judged_by_our_own_clock_whatever_the_walls_say() {
    let mut eyes = Sightings::default();
    // The holder's clock is an hour behind.
    assert_eq!(sight(&mut eyes, view(1, 0, 3600), 100), LeaseSight::Unknown);
    assert_eq!(sight(&mut eyes, view(2, 1, 3601), 101), LeaseSight::Fresh);
    assert_eq!(sight(&mut eyes, view(2, 1, 3606), 106), LeaseSight::Late { secs: 5 });
    assert_eq!(sight(&mut eyes, view(2, 1, 3610), 110), LeaseSight::Expired);
    assert_eq!(sight(&mut eyes, view(3, 9, 3611), 111), LeaseSight::Fresh);
}

#[test]
fn a_lease_that_was_never_seen_to_move_is_no_fresher_than_its_record_says() {
    let mut eyes = Sightings::default();
    assert_eq!(sight(&mut eyes, view(1, 0, 60), 100), LeaseSight::Unknown);
    assert_eq!(sight(&mut eyes, view(1, 0, 63), 103), LeaseSight::Expired);
}
