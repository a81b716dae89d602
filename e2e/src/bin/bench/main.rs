//! `make bench`: what zsha costs and how fast it is, measured in the lab beside the aims. It is a report: it judges
//! nothing, and ends with an error only where something could not be measured.
//!
//!   ZSHA_BENCH_ROUNDS=5        how often each scenario is measured
//!   ZSHA_BENCH_IDLE_SECS=60    how long the idle cluster is watched

// It measures real time.
#![allow(clippy::disallowed_methods)]

mod failover;
mod first_action;
mod http;
mod idle;
mod machine;
mod process;
mod report;
mod restart;
mod simulator;
mod status;
mod virsh;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use zsha_e2e::scenario::SETTLE_LIMIT;
use zsha_e2e::{Cluster, product_directory};

use machine::Machine;
use report::Report;

/// The guest boots under emulation, perhaps on one core of a busy machine.
const GUEST_BOOT_LIMIT: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything. True if everything could be measured.
fn run() -> Result<bool> {
    let rounds = setting("ZSHA_BENCH_ROUNDS", 5)?;
    let idle = Duration::from_secs(setting("ZSHA_BENCH_IDLE_SECS", 60)?);
    let mut report = Report::new(Machine::look(&product_directory()?)?);
    println!("{}", report.machine);
    report.section("the lab with profile Balanced", |report| balanced(report, rounds, idle));
    report.section("the lab with profile Fast", |report| fast(report, rounds));
    for _ in 2..rounds {
        report.section("a first start", |report| raise("Balanced", report)?.finish());
    }
    report.section("the simulator", simulator::measure);
    println!("{report}");
    report.save()?;
    Ok(report.is_complete())
}

fn balanced(report: &mut Report, rounds: u64, span: Duration) -> Result<()> {
    let lab = raise("Balanced", report)?;
    report.section("the idle cluster", |report| {
        idle_guest(&lab)?;
        idle::measure(&lab, span, report)
    });
    report.section("zsha status", |report| status::measure(&lab, report));
    report.section("QEMU killed", |report| restart::measure(&lab, rounds, report));
    report.section("power loss, Balanced", |report| failover::measure(&lab, "Balanced", rounds, report));
    lab.finish()
}

fn fast(report: &mut Report, rounds: u64) -> Result<()> {
    let lab = raise("Fast", report)?;
    report.section("power loss, Fast", |report| failover::measure(&lab, "Fast", rounds, report));
    lab.finish()
}

/// Makes a new lab with its VM running; its very first document is a sample of its own.
fn raise(profile: &str, report: &mut Report) -> Result<Cluster> {
    eprintln!("bench: a lab with profile {profile}");
    let lab = Cluster::builder().nodes(3).profile(profile).alone().build()?;
    first_action::measure(&lab, report)?;
    lab.settled(SETTLE_LIMIT)?;
    Ok(lab)
}

/// Waits until the guest has booted: until then the guest keeps the machine busy.
fn idle_guest(lab: &Cluster) -> Result<()> {
    let owner = lab.settled(SETTLE_LIMIT)?;
    lab.until("the guest's agent answers", GUEST_BOOT_LIMIT, || owner.guest_up().map(Some)).map(drop)
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, and not a number")),
        Err(_) => Ok(default),
    }
}
