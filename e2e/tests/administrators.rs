//! What people do with libvirt by hand, past zsha, on real hosts: the guest is moved, destroyed, paused, saved, started a
//! second time. What they have moved goes on where it is; what they start beside it is ended; and what nobody can know
//! of, nobody starts on top of.
//!
//! The independent check sees the VM by its image. What is started by hand here has another disk, so it is looked for by
//! that; and an attempt to start the VM counts as one, though QEMU's image lock ends it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zsha_e2e::administrator::Starts;
use zsha_e2e::guest::DOMAIN;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, now};
use zsha_e2e::{Cluster, Host};

/// Longer than every deadline of the lease in `Fast`, and than two looks of everybody at everybody.
const LONG_ENOUGH: Duration = Duration::from_secs(15);
/// The time in which a copy that was started by hand beside the VM is ended: a look of the keeper's, or of the
/// controller's.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// The time in which a copy is ended that may be the VM as far as its node can tell: until its owner has shown twice
/// that it has the VM.
const TOLD_APART_WITHIN: Duration = Duration::from_secs(20);
/// A keeper sets free what its node owned once it has seen no copy, and heard no controller, for so long.
const SET_FREE: Duration = Duration::from_secs(40);
/// The time for a whole command that waits for the VM to run.
const COMMAND: Duration = Duration::from_secs(90);

fn running_lab(hosts: usize) -> Result<Cluster> {
    let lab = Cluster::builder().nodes(hosts).profile("Fast").build()?;
    lab.start_vm()?;
    lab.settled(SETTLE_LIMIT)?;
    Ok(lab)
}

/// The owner, the process of the VM there, and another host.
fn owner_and_other(lab: &Cluster) -> Result<(&Host, i32, &Host)> {
    let owner = lab.settled(SETTLE_LIMIT)?;
    let process = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    Ok((owner, process, lab.others(owner).next().context("no other host")?))
}

fn said(host: &Host, words: &[&str]) -> Result<String> {
    host.exec_with(&[&["zsha"], words].concat(), "", COMMAND)?.success()
}

/// A guest on its way by hand.
struct Move<'a> {
    owner: &'a Host,
    target: &'a Host,
}

/// The flags that a person types after `virsh migrate`: with a definition that is to stay at the target, and without.
const BOTH: [&[&str]; 2] = [&["--live"], &["--live", "--persistent"]];
const PLAIN: [&[&str]; 1] = [&["--live"]];
/// The source is paused for as long as it takes, which at 2 MiB/s is longer than zsha bears with a QEMU that does not work.
const PAUSED: [&[&str]; 1] = [&["--bandwidth", "2"]];
/// The time in which a guest that is paused for a fault goes on: it has 5 s for that, and libvirt's answer to a resume
/// takes some.
const BORNE: Duration = Duration::from_secs(8);

/// Moved by hand while things are as `before` leaves them, and then `meanwhile` happens: one process at the target all along,
/// and in the end that host is the owner.
fn moved_and_claimed_where_it_runs(
    each: &[&[&str]],
    before: impl Fn(&Move<'_>) -> Result<()>,
    meanwhile: impl Fn(&Move<'_>, &Starts<'_>, i32) -> Result<()>,
) -> Result<()> {
    let lab = running_lab(3)?;
    for options in each {
        let (owner, process, target) = owner_and_other(&lab)?;
        let the_move = Move { owner, target };
        before(&the_move)?;
        let starts = Starts::so_far(&lab)?.and_one_on(target);
        let begun = now();
        let moved = owner.migrates_past_zsha(target, options)?;
        let took = begun.elapsed();
        ensure!(
            *options != PAUSED[0] || took > BORNE,
            "it was paused for {took:.1?} only: nothing was tried"
        );
        let what = format!(
            "virsh migrate {options:?}: process {process} on {} became {moved} on {} within {took:.1?}",
            owner.name, target.name
        );
        meanwhile(&the_move, &starts, moved).with_context(|| what.clone())?;
        lab.recorded(target, SETTLE_LIMIT).with_context(|| what.clone())?;
        starts.only(moved, LONG_ENOUGH).with_context(|| what.clone())?;
        lab.power_on_all()?;
        lab.wait_until_up(SETTLE_LIMIT)?;
        let runs_on = lab.settled(SETTLE_LIMIT).with_context(|| what.clone())?;
        ensure!(runs_on.name == target.name, "{what}; status says {}", runs_on.name);
        starts.only(moved, SECOND).with_context(|| what.clone())?;
        println!("{what}, and is the VM");
    }
    // And it is an ordinary VM there: what dies is started again.
    let owner = lab.settled(SETTLE_LIMIT)?;
    lab.recovered(owner.kill9("qemu")?, FAILOVER_LIMIT)?;
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}

#[test]
fn a_guest_moved_by_hand_to_a_node_whose_controller_is_down_goes_on_there_and_is_claimed_once_it_is_back()
-> Result<()> {
    moved_and_claimed_where_it_runs(
        &BOTH,
        |moving| moving.target.stop("controller"),
        |moving, starts, moved| {
            starts.only(moved, LONG_ENOUGH)?;
            moving.target.start("controller")
        },
    )
}

#[test]
fn a_guest_moved_by_hand_to_a_node_is_claimed_where_it_runs() -> Result<()> {
    moved_and_claimed_where_it_runs(&BOTH, |_| Ok(()), |_, _, _| Ok(()))
}

#[test]
fn a_guest_moved_by_hand_that_is_paused_meanwhile_is_let_be_and_claimed_where_it_runs() -> Result<()> {
    moved_and_claimed_where_it_runs(&PAUSED, |_| Ok(()), |_, _, _| Ok(()))
}

#[test]
fn a_guest_moved_by_hand_while_its_owners_controller_is_down_is_handed_over_once_that_is_back() -> Result<()>
{
    moved_and_claimed_where_it_runs(
        &PLAIN,
        |moving| moving.owner.stop("controller"),
        |moving, starts, moved| {
            starts.only(moved, LONG_ENOUGH)?;
            moving.owner.start("controller")
        },
    )
}

#[test]
fn a_guest_moved_by_hand_from_a_node_that_dies_before_it_can_say_so_is_claimed_where_it_runs() -> Result<()> {
    moved_and_claimed_where_it_runs(
        &PLAIN,
        |moving| moving.owner.stop("controller"),
        |moving, _, _| moving.owner.power_off().map(drop),
    )
}

/// Three nodes, and a host with libvirt that is none of them.
fn lab_with_a_stranger() -> Result<Cluster> {
    let lab = Cluster::builder().nodes(4).profile("Fast").build()?;
    let stranger = lab.host(4);
    for service in ["controller", "keeper"] {
        stranger.stop(service)?;
    }
    let nodes: Vec<_> =
        (1..=3).map(|number| format!("{} {}", lab.host(number).address(), lab.host(number).name)).collect();
    lab.apply(&lab.document().with("Node", nodes), "three of the four hosts")?;
    lab.settled(SETTLE_LIMIT)?;
    Ok(lab)
}

fn says_that_it_was_moved_away(lab: &Cluster, asked: &Host) -> Result<()> {
    lab.until("status says so, and what to do", SETTLE_LIMIT, || {
        let status = said(asked, &["status"])?;
        let says = |words: &[&str]| words.iter().all(|word| status.contains(word));
        ensure!(says(&["was not zsha's", "zsha start"]), "{status}");
        Ok(Some(()))
    })
}

/// Its keeper sets free what the node owned, and says that it was moved away.
#[test]
fn a_guest_moved_by_hand_to_a_host_of_another_cluster_by_a_node_without_controller_is_not_taken_for_dead()
-> Result<()> {
    let lab = lab_with_a_stranger()?;
    let (stranger, owner) = (lab.host(4), lab.settled(SETTLE_LIMIT)?);
    owner.copies_seed_to(stranger)?;
    let starts = Starts::so_far(&lab)?.and_one_on(stranger);
    owner.stop("controller")?;
    let moved = owner.migrates_past_zsha(stranger, PLAIN[0])?;
    starts.only(moved, SET_FREE + LONG_ENOUGH)?;
    let other = lab.others(owner).find(|host| host.name != stranger.name).context("no other host")?;
    says_that_it_was_moved_away(&lab, other)?;
    owner.start("controller")?;
    starts.only(moved, LONG_ENOUGH)?;
    println!("process {moved} on {} is the only one", stranger.name);
    stranger.virsh(&["destroy", DOMAIN])?;
    lab.until("it is gone", SETTLE_LIMIT, || Ok(lab.check().alive().is_empty().then_some(())))?;
    said(other, &["start"])?;
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}

#[test]
fn a_guest_moved_by_hand_to_a_host_of_another_cluster_is_started_only_by_command() -> Result<()> {
    let lab = lab_with_a_stranger()?;
    let (stranger, owner) = (lab.host(4), lab.settled(SETTLE_LIMIT)?);
    let process = owner.pid_of_qemu()?.context("no QEMU on the owner")?;

    owner.copies_seed_to(stranger)?;
    let starts = Starts::so_far(&lab)?.and_one_on(stranger);
    let moved = owner.migrates_past_zsha(stranger, PLAIN[0])?;
    println!("process {process} on {} became {moved} on {}", owner.name, stranger.name);
    starts.only(moved, LONG_ENOUGH)?;
    says_that_it_was_moved_away(&lab, owner)?;
    // Neither does one that restarts and finds no copy, nor another that sees the owner die.
    owner.restart("controller")?;
    starts.only(moved, LONG_ENOUGH)?;
    owner.power_off()?;
    starts.only(moved, LONG_ENOUGH)?;
    owner.power_on()?;
    lab.wait_until_up(SETTLE_LIMIT)?;
    starts.only(moved, SECOND)?;

    stranger.virsh(&["destroy", DOMAIN])?;
    lab.until("it is gone", SETTLE_LIMIT, || Ok(lab.check().alive().is_empty().then_some(())))?;
    starts.nothing(5 * SECOND)?;
    let asked = now();
    let answer = said(lab.host(1), &["start"])?;
    ensure!(answer.contains("mnvm runs on "), "{answer}");
    let runs_on = lab.settled(SETTLE_LIMIT)?;
    println!("`zsha start`: it runs on {} after {:.2?}", runs_on.name, asked.elapsed());
    lab.finish()
}

#[test]
fn while_frozen_a_guest_moved_by_hand_is_neither_ended_nor_started_nor_claimed() -> Result<()> {
    let lab = running_lab(3)?;
    let (owner, process, target) = owner_and_other(&lab)?;
    said(owner, &["freeze", "-m", "switch works"])?;
    lab.until("every controller has seen it", SETTLE_LIMIT, || {
        let status = said(target, &["status"])?;
        ensure!(status.contains("not protected since ") && status.contains("switch works"), "{status}");
        Ok(Some(()))
    })?;
    let starts = Starts::so_far(&lab)?.and_one_on(target);
    let moved = owner.migrates_past_zsha(target, PLAIN[0])?;
    println!("while frozen process {process} on {} became {moved} on {}", owner.name, target.name);
    starts.only(moved, LONG_ENOUGH)?;
    ensure!(target.recorded_owner()?.as_ref() == Some(&owner.name), "the record has changed");
    let status = said(target, &["status"])?;
    ensure!(status.contains("Frozen") && status.contains(&target.name), "{status}");

    said(target, &["resume"])?;
    lab.recorded(target, SETTLE_LIMIT)?;
    starts.only(moved, LONG_ENOUGH)?;
    lab.settled(SETTLE_LIMIT)?;
    starts.only(moved, SECOND)?;
    lab.finish()
}

/// Everything that `virsh` can do to the owner's own domain. What it ended is started again, once; what it left is left.
#[test]
fn what_is_done_by_hand_to_the_owners_domain_costs_one_start_or_none() -> Result<()> {
    let lab = running_lab(3)?;

    let (owner, process, _) = owner_and_other(&lab)?;
    let starts = Starts::so_far(&lab)?;
    owner.virsh(&["suspend", DOMAIN])?;
    starts.only(process, LONG_ENOUGH)?;
    let state = owner.virsh(&["domstate", DOMAIN])?;
    ensure!(state.trim() == "paused", "nobody but who paused it lets it go on, and it is {state}");
    owner.virsh(&["resume", DOMAIN])?;
    starts.only(process, LONG_ENOUGH)?;
    ensure!(owner.virsh(&["domstate", DOMAIN])?.trim() == "running", "it was let go on");
    println!("virsh suspend, resume: process {process} is untouched");

    // Every host sees the lab's directory.
    let saved = &lab.dir().join("mnvm.saved").display().to_string();
    for words in [&["destroy", DOMAIN][..], &["managedsave", DOMAIN], &["save", DOMAIN, saved]] {
        let (owner, process, _) = owner_and_other(&lab)?;
        let starts = Starts::so_far(&lab)?;
        let at = now();
        if let Err(refused) = owner.virsh(words) {
            // There is nothing on disk that memory could be kept beside.
            ensure!(words[0] == "managedsave" && format!("{refused:#}").contains("transient"), "{refused:#}");
            starts.only(process, LONG_ENOUGH)?;
            println!("virsh managedsave is refused: process {process} is untouched");
            continue;
        }
        let back = lab.recovered(at, FAILOVER_LIMIT).with_context(|| format!("{words:?}"))?;
        ensure!(back.host.name == owner.name, "{words:?}: it was started on {}", back.host.name);
        starts.and_one_on(owner).only(back.pid, LONG_ENOUGH).with_context(|| format!("{words:?}"))?;
        println!("virsh {}: process {process}, then {} after {:.2?}", words[0], back.pid, back.took);
    }
    // Its memory is older than its disk by now.
    let (owner, process, _) = owner_and_other(&lab)?;
    ensure!(owner.virsh(&["restore", saved]).is_err(), "a saved guest went on beside the VM");
    let starts = Starts::so_far(&lab)?;
    starts.only(process, LONG_ENOUGH)?;
    lab.finish()
}

/// The one who ends a copy on a node whose controller is down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    Keeper,
    /// Once it is back: to a keeper a guest that comes from a file looks like one that was moved there.
    Controller,
}

/// A copy that is begun by hand on a host that is not the owner, with its controller and without, is ended, and the VM goes
/// on.
fn ended_beside_the_vm(
    lab: &Cluster,
    what: &str,
    (within, by): (Duration, EndedBy),
    begin: impl Fn(&Host, &Host) -> Result<Option<i32>>,
) -> Result<()> {
    for controller in ["runs", "is down"] {
        let (owner, process, other) = owner_and_other(lab)?;
        if controller == "is down" {
            other.stop("controller")?;
        }
        let starts = Starts::so_far(lab)?.and_one_on(other);
        let by_hand = begin(owner, other)?;
        let what = format!("{what} on {}, whose controller {controller}: process {by_hand:?}", other.name);
        if by == EndedBy::Controller {
            other.start("controller")?;
        }
        let took = lab.ended_by_hand(other, within).with_context(|| what.clone())?;
        println!("{what} was ended after {took:.2?}");
        starts.only(process, LONG_ENOUGH).with_context(|| what.clone())?;
        other.start("controller")?;
        ensure!(lab.settled(SETTLE_LIMIT)?.name == owner.name, "{what}: the VM has moved");
        starts.only(process, SECOND).with_context(|| what.clone())?;
    }
    Ok(())
}

#[test]
fn a_second_copy_started_by_hand_is_ended_by_its_node_also_where_the_controller_is_down() -> Result<()> {
    let lab = running_lab(3)?;
    ended_beside_the_vm(&lab, "virsh create", (ENDED_WITHIN, EndedBy::Keeper), |owner, other| {
        other.starts_by_hand(owner)
    })?;
    lab.finish()
}

/// Past libvirt, on the very node that has the VM.
#[test]
fn a_second_qemu_beside_the_owners_own_is_ended_and_the_vm_is_not() -> Result<()> {
    let lab = running_lab(3)?;
    let (owner, process, _) = owner_and_other(&lab)?;
    let uuid = owner.virsh(&["domuuid", DOMAIN])?.trim().to_owned();
    for controller in ["up", "down"] {
        if controller == "down" {
            owner.stop("controller")?;
        }
        let by_hand =
            ["-name", "by-hand", "-uuid", &uuid, "-machine", "none", "-nodefaults", "-display", "none"];
        owner.ok(&[&["qemu-system-x86_64"], &by_hand[..], &["-S", "-daemonize"]].concat())?;
        let begun = now();
        lab.until("it is ended", ENDED_WITHIN, || {
            let there = owner.exec(&["pgrep", "-f", "qemu.* -name by-hand"])?.success().is_ok();
            Ok((!there).then_some(()))
        })?;
        println!("with the controller {controller} it is ended {:.2?} later", begun.elapsed());
        ensure!(owner.pid_of_qemu()? == Some(process), "the VM is another process");
    }
    owner.start("controller")?;
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}

/// It looks to its node like one that was moved there: its process was made to take a guest in.
#[test]
fn a_saved_guest_that_is_restored_beside_the_vm_is_ended_by_its_nodes_controller_once_that_runs() -> Result<()>
{
    let lab = running_lab(3)?;
    let (owner, _, _) = owner_and_other(&lab)?;
    // Every host sees the lab's directory.
    let saved = lab.dir().join("mnvm.saved").display().to_string();
    let at = now();
    owner.virsh(&["save", DOMAIN, &saved])?;
    lab.recovered(at, FAILOVER_LIMIT)?;
    let limits = (TOLD_APART_WITHIN, EndedBy::Controller);
    ended_beside_the_vm(&lab, "virsh restore", limits, |_, other| other.restores_by_hand(&saved))?;
    lab.finish()
}
