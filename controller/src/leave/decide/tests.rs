//! Tests of decisions by values: what was seen in, the next step out.

use super::*;
use crate::hypervisor::OffReason;

const NOW: Moment = Moment::from_millis(1_000_000);
const LIMIT: Duration = Duration::from_secs(600);
const RUNNING: LocalVm = LocalVm::Running { generation: 1 };
const OFF: LocalVm = LocalVm::Off { reason: OffReason::Shutdown };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn cluster(place: Place) -> Cluster {
    Cluster {
        place,
        owner_goes_down: None,
        others_go_down: false,
        somebody_has_it: true,
        controller_alive: true,
    }
}

fn sees(cluster: Cluster, local: LocalVm) -> Seen {
    Seen {
        cluster: Observed::Known(cluster),
        lease: Observed::unknown("not asked"),
        local: Observed::Known(local),
    }
}

/// The store is silent, and the lease is valid for so long.
fn silent(valid_until: Option<Moment>, local: LocalVm) -> Seen {
    let verdict = Verdict { valid_until, ..Verdict::invalid("nfs-1") };
    Seen {
        cluster: Observed::unknown("Consul does not answer"),
        lease: Observed::Known(verdict),
        local: Observed::Known(local),
    }
}

fn begin() -> SoFar {
    SoFar::begin(NOW, LIMIT)
}

fn done(next: &Next) -> bool {
    matches!(next, Next::Done(_))
}

fn waits(next: &Next) -> bool {
    matches!(next, Next::Wait(_))
}

#[test]
fn a_host_without_the_vm_goes_down_at_once_unless_others_do_as_well() {
    let alone = cluster(Place::NotHere);
    assert!(done(&decide(&sees(alone.clone(), OFF), &mut begin(), NOW)));
    let together = sees(Cluster { others_go_down: true, ..alone.clone() }, OFF);
    let mut so_far = begin();
    assert!(waits(&decide(&together, &mut so_far, NOW + secs(4))));
    assert!(done(&decide(&together, &mut so_far, NOW + secs(5))), "the one with the VM stays up");
    let nobody = sees(Cluster { others_go_down: true, somebody_has_it: false, ..alone }, OFF);
    assert!(done(&decide(&nobody, &mut begin(), NOW)));
}

#[test]
fn it_stays_for_an_owner_that_goes_down_while_that_renews_and_has_time() {
    let owner = |seq| {
        let node = NodeName::new("nfs-2").unwrap();
        let cluster = cluster(Place::NotHere);
        sees(Cluster { owner_goes_down: Some(GoesDown { node, seq }), ..cluster }, OFF)
    };
    let mut so_far = begin();
    for second in 0..180 {
        assert!(waits(&decide(&owner(second), &mut so_far, NOW + secs(second))), "{second}");
    }
    assert!(done(&decide(&owner(180), &mut so_far, NOW + secs(180))), "the document's 120 s and 60 s more");
    let mut so_far = begin();
    assert!(waits(&decide(&owner(1), &mut so_far, NOW)));
    assert!(waits(&decide(&owner(1), &mut so_far, NOW + secs(29))));
    assert!(done(&decide(&owner(1), &mut so_far, NOW + secs(30))), "it is dead");
}

#[test]
fn of_the_limit_the_guest_gets_its_time_and_the_move_what_is_left() {
    let seen = sees(cluster(Place::Here), RUNNING);
    let mut so_far = begin();
    assert!(waits(&decide(&seen, &mut so_far, NOW + secs(459))));
    assert_eq!(decide(&seen, &mut so_far, NOW + secs(460)), Next::SayNoTimeToMove);
    assert!(waits(&decide(&seen, &mut so_far, NOW + secs(460))), "the controller does the rest");
    assert!(matches!(decide(&seen, &mut so_far, NOW + LIMIT), Next::GiveUp(_)));
}

#[test]
fn of_a_limit_shorter_than_the_guests_time_the_move_gets_half() {
    let seen = sees(cluster(Place::Here), RUNNING);
    let mut so_far = SoFar::begin(NOW, secs(60));
    assert!(waits(&decide(&seen, &mut so_far, NOW)));
    assert!(waits(&decide(&seen, &mut so_far, NOW + secs(29))));
    assert_eq!(decide(&seen, &mut so_far, NOW + secs(30)), Next::SayNoTimeToMove);
}

#[test]
fn where_the_controller_is_dead_the_guest_is_asked_all_the_same_and_ended_after_its_time() {
    let seen = sees(Cluster { controller_alive: false, ..cluster(Place::Here) }, RUNNING);
    let mut so_far = begin();
    assert!(waits(&decide(&seen, &mut so_far, NOW)));
    assert!(waits(&decide(&seen, &mut so_far, NOW + secs(14))), "it may only be restarted");
    assert_eq!(decide(&seen, &mut so_far, NOW + secs(15)), Next::SayNoTimeToMove);
    assert!(matches!(decide(&seen, &mut so_far, NOW + secs(15)), Next::PowerOff(_)));
    assert!(waits(&decide(&seen, &mut so_far, NOW + secs(29))));
    assert!(matches!(decide(&seen, &mut so_far, NOW + secs(30)), Next::PowerOff(_)), "and again");
    assert!(matches!(decide(&seen, &mut so_far, NOW + secs(135)), Next::End(_)));
    let off = sees(Cluster { controller_alive: false, ..cluster(Place::Here) }, OFF);
    assert!(waits(&decide(&off, &mut so_far, NOW + secs(136))));
    assert!(done(&decide(&off, &mut so_far, NOW + secs(146))));
}

#[test]
fn without_the_store_the_guest_is_asked_once_half_of_the_lease_is_gone_and_not_before() {
    let until = NOW + secs(8);
    let mut so_far = begin();
    assert!(
        waits(&decide(&silent(Some(until), RUNNING), &mut so_far, NOW + secs(3))),
        "an election is shorter"
    );
    let asks = decide(&silent(Some(until), RUNNING), &mut so_far, NOW + secs(4));
    assert!(matches!(asks, Next::PowerOff(_)), "{asks:?}");
    assert!(
        waits(&decide(&silent(Some(until), OFF), &mut so_far, NOW + secs(6))),
        "its controller could start it"
    );
    assert!(done(&decide(&silent(None, OFF), &mut so_far, NOW + secs(8))));
}

#[test]
fn a_lease_that_is_renewed_though_this_process_cannot_read_the_store_is_no_reason_to_end_the_guest() {
    let mut so_far = begin();
    for second in 0..460 {
        let now = NOW + secs(second);
        assert!(waits(&decide(&silent(Some(now + secs(7)), RUNNING), &mut so_far, now)), "{second}");
    }
    let now = NOW + secs(460);
    let asks = decide(&silent(Some(now + secs(7)), RUNNING), &mut so_far, now);
    assert!(matches!(asks, Next::PowerOff(_)), "the host goes down all the same: {asks:?}");
}

#[test]
fn without_the_store_a_copy_that_its_keeper_cannot_end_keeps_no_host_up_for_long() {
    let (mut so_far, lapsed) = (begin(), NOW + secs(5));
    let undead = silent(Some(lapsed), RUNNING);
    for second in 0..35 {
        let next = decide(&undead, &mut so_far, NOW + secs(second));
        assert!(!done(&next), "{second}: {next:?}");
    }
    let Next::Done(why) = decide(&undead, &mut so_far, NOW + secs(35)) else { panic!("it is kept up") };
    assert!(why.contains("cannot end what is here"), "{why}");
}

#[test]
fn without_the_store_a_guest_that_is_leaving_is_not_ended() {
    let leaving = LocalVm::Paused { reason: PauseReason::Leaving, generation: 1 };
    assert!(waits(&decide(&silent(Some(NOW + secs(1)), leaving), &mut begin(), NOW)));
}

#[test]
fn without_the_store_a_host_on_which_nothing_runs_is_not_kept_up() {
    let mut so_far = begin();
    let seen = silent(Some(NOW + secs(60)), LocalVm::Absent);
    assert!(waits(&decide(&seen, &mut so_far, NOW)));
    assert!(done(&decide(&seen, &mut so_far, NOW + secs(10))));
}

#[test]
fn a_copy_that_arrives_is_not_touched_past_its_sender() {
    let arriving = LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 };
    let mut so_far = begin();
    assert!(waits(&decide(&silent(Some(NOW + secs(1)), arriving), &mut so_far, NOW)));
    let seen = sees(Cluster { controller_alive: false, ..cluster(Place::OnItsWayHere) }, arriving);
    decide(&seen, &mut so_far, NOW);
    decide(&seen, &mut so_far, NOW + secs(20));
    assert!(waits(&decide(&seen, &mut so_far, NOW + secs(21))));
}

/// Kept where it was moved by hand, since the cluster is frozen.
#[test]
fn a_guest_that_the_record_has_elsewhere_is_asked_to_power_off_before_the_host_goes() {
    let mut so_far = begin();
    let here = sees(cluster(Place::NotHere), RUNNING);
    for seconds in [0, 14] {
        assert!(
            waits(&decide(&here, &mut so_far, NOW + secs(seconds))),
            "the record may be about to name it"
        );
    }
    assert!(matches!(decide(&here, &mut so_far, NOW + secs(15)), Next::PowerOff(_)));
    let guest_time = so_far.guest_time;
    assert!(matches!(decide(&here, &mut so_far, NOW + secs(15) + guest_time), Next::End(_)));
    assert!(matches!(decide(&here, &mut so_far, NOW + LIMIT), Next::GiveUp(_)));
    assert!(done(&decide(&sees(cluster(Place::NotHere), OFF), &mut so_far, NOW + secs(20))));
    // What only arrives is its sender's.
    let incoming = LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 };
    assert!(done(&decide(&sees(cluster(Place::NotHere), incoming), &mut begin(), NOW)));
}
