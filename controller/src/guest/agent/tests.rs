//! The script as text, and every answer there is. That it does in a guest what it says shows the lab's.

use std::process::Command;

use super::*;

fn config() -> GuestConfig {
    let nic = |mac: &str, address: &str, gateway: &str, is_default_route| NicConfig {
        mac: mac.to_owned(),
        address: address.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        is_default_route,
        is_management: is_default_route,
    };
    GuestConfig {
        nics: vec![
            nic("02:10:10:10:10:10", "10.0.0.5/24", "10.0.0.1", true),
            nic("02:10:10:10:10:11", "10.1.0.5/16", "10.1.0.1", false),
        ],
        dns: vec!["10.0.0.53".parse().unwrap(), "10.0.0.54".parse().unwrap()],
        time_servers: vec!["10.0.0.123".to_owned(), "time.lan".to_owned()],
        console_proxy: None,
    }
}

#[test]
fn the_script_begins_with_what_the_document_says_and_a_shell_can_read_it() {
    let script = script(&VmName::management(), &config());
    let values = script.strip_suffix(SCRIPT).unwrap();
    insta::assert_snapshot!(values);
    let read = Command::new("/bin/sh").args(["-n", "-c", &script]).output().unwrap();
    assert!(read.status.success(), "{read:?}");
}

#[test]
fn it_carries_the_id_and_the_file_that_the_seed_has() {
    let seed = super::super::Seed::new(&VmName::management(), &config());
    let id = seed::id(&VmName::management(), &config());
    assert!(seed.meta_data.contains(&id));
    let script = script(&VmName::management(), &config());
    for line in seed::guest_file(&config(), &id).lines() {
        assert!(script.contains(line), "{line}");
    }
}

#[test]
fn a_guest_that_has_seen_to_it_is_told_from_one_that_would_not_and_one_that_is_silent() {
    let of = |said: &str| Told::of(Ok(GuestRan::Printed(said.to_owned())));
    assert_eq!(of("cloud-init\n"), Told::CloudInit);
    let applied = |anew, but: &str| Told::Applied { id: "mnvm-1".to_owned(), anew, but: but.to_owned() };
    assert_eq!(of("applied mnvm-1\n"), applied(true, ""));
    assert_eq!(of("applied mnvm-1 but not its resolvers\n"), applied(true, "but not its resolvers"));
    assert_eq!(of("already mnvm-1\n"), applied(false, ""));
    assert_eq!(of("later\n"), Told::NextBoot);
    assert!(matches!(of(""), Told::Failed(_)) && matches!(of("what?"), Told::Failed(_)));
    for not_yet in ["booting", "busy"] {
        let (status, reason, message) = of(not_yet).verdict();
        assert_eq!((status, reason), (ConditionStatus::Unknown, "NotYet"), "{not_yet}");
        assert!(!of(not_yet).is_settled() && !message.contains("no agent"), "{message}");
    }
    for silent in [
        HypervisorError::Refused {
            operation: "run in the guest",
            reason: "the domain is not running".to_owned(),
        },
        HypervisorError::Unanswered { operation: "run in the guest", waited_secs: 38 },
        HypervisorError::Unreachable { operation: "run in the guest", reason: "gone".to_owned() },
    ] {
        assert!(matches!(Told::of(Err(silent.clone())), Told::Unknown(_)), "{silent}");
    }
    let forbidden = "Command guest-exec has been disabled".to_owned();
    assert_eq!(Told::of(Ok(GuestRan::NotAllowed(forbidden.clone()))), Told::NotAllowed(forbidden));
    assert!(matches!(Told::of(Ok(GuestRan::Failed("status 1".to_owned()))), Told::Failed(_)));
}

#[test]
fn only_what_the_guest_itself_says_is_held_against_it() {
    let verdict = |told: Told| told.verdict().0;
    assert_eq!(verdict(Told::CloudInit), ConditionStatus::True);
    assert_eq!(verdict(Told::Failed("status 1".to_owned())), ConditionStatus::False);
    for open in [
        Told::Unknown("not connected".to_owned()),
        // It may well have cloud-init: on CentOS and its kin no agent may run anything.
        Told::NotAllowed("disabled".to_owned()),
        Told::NextBoot,
    ] {
        assert_eq!(verdict(open.clone()), ConditionStatus::Unknown, "{open:?}");
    }
}

#[test]
fn what_was_done_in_this_boot_and_what_could_not_be_are_events_and_waiting_is_none() {
    let applied = |anew| Told::Applied { id: "mnvm-1".to_owned(), anew, but: String::new() };
    assert_eq!(applied(true).event(), Some((EventType::Normal, EventReason::GuestTold)));
    assert_eq!(
        Told::Failed("status 1".to_owned()).event(),
        Some((EventType::Warning, EventReason::GuestNotTold))
    );
    for left in [Told::NextBoot, Told::NotAllowed("disabled".to_owned())] {
        assert_eq!(left.event(), Some((EventType::Normal, EventReason::GuestNotTold)), "{left:?}");
    }
    for none in
        [applied(false), Told::CloudInit, Told::NotYet("it boots"), Told::Unknown("silent".to_owned())]
    {
        assert_eq!(none.event(), None, "{none:?}");
    }
}
