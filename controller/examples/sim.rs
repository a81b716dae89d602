//! Runs seeds of the simulator on every core and sums them up: `make sim SEEDS=10000`, or `make sim SEED=17` for
//! the log of one; with `RUST_LOG=debug` also what the nodes of that one log, on stderr, by virtual time. With `--plant` a bug is planted first, to see how many seeds it takes to find it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use zsha_controller::planted::{self, Bug};
use zsha_controller::sim;
use zsha_controller::sim::gate::CallFault;
use zsha_runtime::Clock;

/// Failing seeds shown in full.
const SHOWN: usize = 50;

/// A long run says so often how far it is.
const SAID: u64 = 5_000;

#[derive(Default)]
struct Sum {
    faults: BTreeMap<&'static str, u64>,
    virtual_millis: u64,
    /// The slowest, and its seed.
    settled_millis: (u64, u64),
    played: u64,
    failed: Vec<sim::Report>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut of = Of::default();
    let arguments = match of.take(&arguments) {
        Ok(rest) => rest,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match arguments {
        ["--scenario", file] if of == Of::default() => play(file),
        ["--matrix"] if of == Of::default() => matrix(1),
        ["--matrix", seed] if of == Of::default() => number(seed).map_or(ExitCode::from(2), matrix),
        ["--matrix", seed, "--call", call, fault] if of == Of::default() => {
            match (number(seed), number(call), fault_named(fault)) {
                (Some(seed), Some(call), Some(fault)) => shown(&sim::matrix::play(seed, call, fault)),
                _ => ExitCode::from(2),
            }
        }
        ["--seed", seed] => number(seed).map_or(ExitCode::from(2), |seed| one(of, seed)),
        ["--seeds", seeds] => number(seeds).map_or(ExitCode::from(2), |seeds| many(of, 0, seeds)),
        ["--from", from, "--seeds", seeds] => match (number(from), number(seeds)) {
            (Some(from), Some(seeds)) => many(of, from, seeds),
            _ => ExitCode::from(2),
        },
        _ => {
            eprintln!(
                "usage: sim --scenario FILE | --matrix [SEED] | [--plant BUG] [--nodes N] --seed N | [--plant BUG] [--nodes N] [--from N] --seeds N"
            );
            ExitCode::from(2)
        }
    }
}

/// The setting in which seeds are played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Of {
    /// The bug that is planted first.
    bug: Option<Bug>,
    /// The number of nodes, where it is not that of the example.
    nodes: Option<u8>,
}

impl Of {
    /// Takes its options from the beginning of the arguments, and gives back the rest.
    fn take<'a, 'b>(&mut self, arguments: &'a [&'b str]) -> Result<&'a [&'b str], String> {
        match arguments {
            ["--plant", name, rest @ ..] => {
                let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == *name);
                self.bug = Some(bug.ok_or_else(|| format!("'{name}' is no bug; there are {:?}", Bug::ALL))?);
                self.take(rest)
            }
            ["--nodes", nodes, rest @ ..] => {
                let size = nodes.parse().ok().filter(|size| (3..200).contains(size) && size % 2 == 1);
                let no_size = || format!("'{nodes}' is no size of a cluster: an odd number from 3 to 199");
                self.nodes = Some(size.ok_or_else(no_size)?);
                self.take(rest)
            }
            rest => Ok(rest),
        }
    }

    fn run(self, seed: u64) -> sim::Report {
        self.nodes.map_or_else(|| sim::run(seed), |nodes| sim::run_with(seed, nodes))
    }

    fn replay(self, seed: u64) -> String {
        let nodes = self.nodes.map(|nodes| format!(" NODES={nodes}")).unwrap_or_default();
        format!("make sim SEED={seed}{nodes}")
    }
}

fn play(file: &str) -> ExitCode {
    let played = std::fs::read_to_string(file)
        .map_err(|error| error.to_string())
        .and_then(|text| sim::scenario::play(&text, 1).map_err(|error| error.to_string()));
    match played {
        Ok(report) => shown(&report),
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn fault_named(name: &str) -> Option<CallFault> {
    let found = CallFault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    if found.is_none() {
        eprintln!("'{name}' is nothing that happens to a call; there are {:?}", CallFault::ALL);
    }
    found
}

/// Every call of the day with everything that can happen to it.
fn matrix(seed: u64) -> ExitCode {
    let started = Clock::Boottime.now();
    let calls = sim::matrix::calls(seed);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let call = next.fetch_add(1, Ordering::Relaxed);
                    if call >= calls {
                        return;
                    }
                    for fault in CallFault::ALL {
                        let report = sim::matrix::play(seed, call, fault);
                        if let (false, Ok(mut failed)) = (report.violations.is_empty(), failed.lock()) {
                            failed.push((call, fault, report.violations));
                        }
                    }
                }
            });
        }
    });
    let secs = Clock::Boottime.now().since(started).as_secs_f64();
    let Ok(mut failed) = failed.into_inner() else { return ExitCode::FAILURE };
    failed.sort_by_key(|(call, _, _)| *call);
    for (call, fault, violations) in failed.iter().take(SHOWN) {
        println!("{fault:?} of call {call}: {}", violations.join("; "));
        println!("  replay: make sim MATRIX=\"{seed} --call {call} {fault:?}\"");
    }
    let faults = CallFault::ALL.len();
    println!("{calls} calls x {faults} faults in {secs:.1} s; violations: {}", failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn number(text: &str) -> Option<u64> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        eprintln!("'{text}' is not a whole number");
    }
    parsed
}

/// Since the first line that was logged: the log of the seed begins a moment before it.
#[derive(Debug, Default)]
struct VirtualTime(OnceLock<Instant>);

impl FormatTime for VirtualTime {
    fn format_time(&self, line: &mut Writer<'_>) -> std::fmt::Result {
        write!(line, "{:9.3}", self.0.get_or_init(Instant::now).elapsed().as_secs_f64())
    }
}

fn one(of: Of, seed: u64) -> ExitCode {
    planted::plant(of.bug);
    let logged = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(logged)
        .with_timer(VirtualTime::default())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    shown(&of.run(seed))
}

fn shown(report: &sim::Report) -> ExitCode {
    print!("{}", report.log);
    for violation in &report.violations {
        println!("VIOLATION {violation}");
    }
    ExitCode::from(u8::from(!report.violations.is_empty()))
}

fn many(of: Of, from: u64, seeds: u64) -> ExitCode {
    let started = Clock::Boottime.now();
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                planted::plant(of.bug);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let report = of.run(seed);
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.virtual_millis += report.virtual_millis;
                    sum.settled_millis = sum.settled_millis.max((report.settled_millis, report.seed));
                    for (kind, count) in &report.faults {
                        *sum.faults.entry(kind).or_default() += count;
                    }
                    if !report.violations.is_empty() {
                        eprintln!("seed {}: {}", report.seed, report.violations.join("; "));
                        sum.failed.push(report);
                    }
                    sum.played += 1;
                    if sum.played.is_multiple_of(SAID) && sum.played < seeds {
                        let secs = Clock::Boottime.now().since(started).as_secs_f64();
                        let (played, failed) = (sum.played, sum.failed.len());
                        eprintln!("{played} of {seeds} seeds in {secs:.0} s, violations: {failed}");
                    }
                }
            });
        }
    });
    let secs = Clock::Boottime.now().since(started).as_secs_f64();
    let Ok(mut sum) = sum.into_inner() else { return ExitCode::FAILURE };
    sum.failed.sort_by_key(|report| report.seed);
    for report in sum.failed.iter().take(SHOWN) {
        println!("seed {}: {}", report.seed, report.violations.join("; "));
        if of.bug.is_none() {
            println!("  replay: {}", of.replay(report.seed));
        }
    }
    println!(
        "{seeds} seeds from {from} in {secs:.1} s on {cores} cores ({:.0} a second), {:.1} virtual hours",
        seeds as f64 / secs,
        sum.virtual_millis as f64 / 3_600_000.0
    );
    let (millis, seed) = sum.settled_millis;
    println!("slowest to settle after the last fault: {:.1} s, in seed {seed}", millis as f64 / 1e3);
    let faults: Vec<_> = sum.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!("faults: {}", faults.join(", "));
    println!("violations: {}", sum.failed.len());
    ExitCode::from(u8::from(!sum.failed.is_empty()))
}
