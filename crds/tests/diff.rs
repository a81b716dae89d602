//! Single changes, and the effect on the VM that is promised for each.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use serde_json::{Value, json};
use zsha_crds::diff::{DiffLook, Impact, Op, diff, summary, unified};
use zsha_crds::{HaCluster, decode, decode_value, normalise};

fn base() -> HaCluster {
    decode(include_str!("../../manifests/examples/cluster.yaml"), "cluster.yaml").unwrap().cluster
}

fn with(edit: impl FnOnce(&mut Value)) -> HaCluster {
    let mut document = normalise::normalised(&base());
    edit(&mut document["spec"]);
    decode_value(&document).unwrap()
}

fn effects(new: &HaCluster) -> Vec<(String, Op, Impact)> {
    diff(Some(&base()), new)
        .into_iter()
        .map(|change| (change.path.to_string(), change.op, change.impact))
        .collect()
}

#[track_caller]
fn one(new: &HaCluster, path: &str, op: Op, impact: Impact) {
    assert_eq!(effects(new), [(path.to_owned(), op, impact)]);
}

#[test]
fn memory_and_cpus_are_in_force_at_the_next_boot() {
    one(&with(|s| s["MemorySizeInGB"] = json!(16)), "spec.MemorySizeInGB", Op::Changed, Impact::AtNextBoot);
    one(&with(|s| s["CPU"] = json!(8)), "spec.CPU", Op::Changed, Impact::AtNextBoot);
}

#[test]
fn timings_fencing_mounts_bridges_and_the_password_switch_do_not_touch_the_vm() {
    let none = |new: &HaCluster, path: &str| one(new, path, Op::Changed, Impact::None);
    none(&with(|s| s["Availability"] = json!({ "Profile": "Fast" })), "spec.Availability.Profile");
    none(&with(|s| s["Fencing"] = json!({ "Watchdog": "required" })), "spec.Fencing.Watchdog");
    none(&with(|s| s["AllowResetRootPassword"] = json!(true)), "spec.AllowResetRootPassword");
    none(&with(|s| s["GuestPowerOff"] = json!("StayOff")), "spec.GuestPowerOff");
    none(&with(|s| s["GuestShutdownSeconds"] = json!(60)), "spec.GuestShutdownSeconds");
    let mounts = json!([{ "Source": "10.0.0.9:/m", "Target": "/opt/smp/mngt" }]);
    one(&with(|s| s["Mounts"] = mounts), "spec.Mounts[0]", Op::Added, Impact::None);
    one(&with(|s| s["Bridges"] = json!([{ "Name": "br_st" }])), "spec.Bridges[0]", Op::Added, Impact::None);
}

#[test]
fn a_preference_moves_the_vm_only_where_it_may_fail_back() {
    let preferred = json!({ "Preferred": ["nfs-2"] });
    one(&with(|s| s["Placement"] = preferred), "spec.Placement.Preferred", Op::Changed, Impact::None);
    let auto = with(|s| s["Placement"] = json!({ "Preferred": ["nfs-2"], "Failback": "auto" }));
    assert!(effects(&auto).iter().all(|(_, _, impact)| *impact == Impact::Migration));
}

#[test]
fn nodes_are_told_apart_by_name_and_nics_by_mac_address() {
    let grown = with(|s| {
        s["Node"].as_array_mut().unwrap().insert(0, json!("192.168.10.14 nfs-4"));
        s["Node"].as_array_mut().unwrap().push(json!("192.168.10.15 nfs-5"));
        s["Network"][0]["Ipaddr"] = json!("172.20.10.3");
        s["Network"][0]["Gateway"] = json!("172.20.10.1");
    });
    let changes = effects(&grown);
    assert!(changes.contains(&("spec.Node[0]".into(), Op::Added, Impact::None)), "{changes:?}");
    assert!(changes.contains(&("spec.Node[4]".into(), Op::Added, Impact::None)), "{changes:?}");
    assert!(changes.contains(&("spec.Servers".into(), Op::Changed, Impact::None)), "{changes:?}");
    assert_eq!(changes.len(), 5, "{changes:?}");
    let swapped = with(|s| s["Network"].as_array_mut().unwrap().swap(0, 1));
    one(&swapped, "spec.Network", Op::Changed, Impact::AtNextBoot);
    let mac = with(|s| s["Network"][1]["MacAddress"] = json!("02:00:00:00:00:01"));
    one(&mac, "spec.Network[1].MacAddress", Op::Changed, Impact::AtNextBoot);
}

#[test]
fn a_member_that_joins_with_the_servers_named_changes_no_server() {
    let grown = |servers: Value| {
        with(|s| {
            s["Node"].as_array_mut().unwrap().push(json!("192.168.10.14 nfs-4"));
            s["Network"][0]["Ipaddr"] = json!("172.20.10.3");
            s["Network"][0]["Gateway"] = json!("172.20.10.1");
            s["Servers"] = servers;
        })
    };
    let of_servers = |new: &HaCluster| {
        let changes = diff(Some(&base()), new);
        changes
            .into_iter()
            .find(|change| change.path.to_string() == "spec.Servers")
            .map(|change| change.impact)
    };
    assert_eq!(of_servers(&grown(json!(["nfs-3", "nfs-1", "nfs-2"]))), None);
    assert_eq!(of_servers(&grown(json!(["nfs-4", "nfs-1", "nfs-2"]))), Some(Impact::None));
}

#[test]
fn spelling_order_without_meaning_and_defaults_written_out_are_no_difference() {
    let same = with(|s| {
        s["Network"][0]["MacAddress"] = json!("02:5A:48:41:00:01");
        s["Network"][0]["Ipaddr"] = json!("172.20.30.3@nfs-3,172.20.10.3@nfs-1, 172.20.20.3@nfs-2");
        s["ImageFolder"] = json!("/opt/smp/mngt");
        s["Availability"] = json!({ "TtlSeconds": 8.0 });
        s["GuestPowerOff"] = json!("Restart");
        s["GuestShutdownSeconds"] = json!(120);
        s["Servers"] = json!(["nfs-3", "nfs-1", "nfs-2"]);
        s["Placement"] = json!({});
    });
    assert_eq!(effects(&same), []);
    assert!(normalise::same(&base(), &same));
}

#[test]
fn a_person_reads_a_unified_diff_with_the_effect_of_each_line() {
    let new = with(|s| {
        s["MemorySizeInGB"] = json!(16);
        s["DNS"] = json!(["172.20.10.1"]);
        s["Network"][1]["Bridge"] = json!("br_pub");
        s["Placement"] = json!({ "Preferred": ["nfs-1"] });
        s["Node"][2] = json!("192.168.10.23 nfs-3");
    });
    insta::assert_snapshot!(unified(
        Some(&base()),
        &new,
        "in force (generation 12)",
        "cluster.yaml",
        DiffLook::Plain
    ));
    let coloured = unified(Some(&base()), &new, "a", "b", DiffLook::Coloured);
    assert!(coloured.contains("\u{1b}[32m+"));
}

#[test]
fn going_back_to_a_default_is_shown_where_the_value_stood() {
    let new = with(|s| {
        s["ChronyServers"] = json!([]);
        s["Network"].as_array_mut().unwrap().remove(1);
        s["Network"][0]["IsDefRoute"] = json!(true);
    });
    insta::assert_snapshot!(unified(
        Some(&base()),
        &new,
        "in force (generation 12)",
        "cluster.yaml",
        DiffLook::Plain
    ));
}

#[test]
fn the_first_document_adds_everything_and_restarts_nothing() {
    let changes = diff(None, &base());
    assert!(changes.iter().all(|change| change.op == Op::Added && change.impact == Impact::None));
    assert_eq!(summary(&changes), "0 changed, 21 added, 0 removed; effect on the VM: none");
}

#[test]
fn differences_as_json_have_path_op_values_impact_and_reason() {
    let new = with(|s| s["CPU"] = json!(8));
    insta::assert_json_snapshot!(diff(Some(&base()), &new));
}
