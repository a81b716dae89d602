//! `make chaos MINUTES=30 SEED=7 PROFILE=Balanced`: random faults on the real lab, one after another, for so long. The
//! independent check looks for a second copy at 20 Hz all along. A fault that must not touch the VM is seen not to, and
//! every recovery is timed beside the bound that the product computes. It ends with a table, and with an error where
//! the promise, a bound or an expectation was broken.
//!
//! The seed chooses the faults and their lengths; how the machine takes them is its own. `FAULTS=ByHand,Migration`
//! takes only those whose name has one of these words.

// It measures real time.
#![allow(clippy::disallowed_methods)]

mod by_hand;
mod fault;
mod inflict;
mod judge;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use by_hand::Act;
use fault::Fault;
use judge::{Expected, Outcome, Seen};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host, wait};
/// The time for an order to be seen. It reaches every controller by its watch.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

struct Chaos {
    lab: Cluster,
    rng: SmallRng,
    memory_gib: u64,
    /// A snapshot of the store, from some time when the cluster was at rest.
    snapshot: String,
    /// The processes that look like the VM: on which host, and which.
    impostors: Vec<(String, String)>,
}

/// The cluster at rest, as a fault finds it, and what the seed has drawn for the fault.
struct Scene {
    /// The name of the owner.
    owner: String,
    /// The VM's process.
    qemu: i32,
    /// The place of the bystander that is meant, among those that there are.
    bystander: usize,
    /// The length of a fault that is to be felt, and of one that is to be over at once.
    length: Duration,
    brief: Duration,
}

/// A fault that was done, and its expected outcome.
struct Inflicted {
    /// The moment when it began to matter.
    at: Instant,
    /// The VM's process that it leaves.
    process: i32,
    /// The time that has been measured already, beside the time that is promised.
    took: Option<(Duration, Duration)>,
}

impl Inflicted {
    fn now(process: i32) -> Self {
        Self { at: Instant::now(), process, took: None }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let minutes: f64 = setting("MINUTES", "30")?;
    let seed: u64 = setting("SEED", "1")?;
    let profile: String = setting("PROFILE", "Balanced")?;
    let begun = Instant::now();
    let lab = Cluster::builder().nodes(3).profile(&profile).alone().build()?;
    lab.start_vm()?;
    let snapshot = lab.dir().join("store.snapshot").display().to_string();
    lab.settled(SETTLE_LIMIT)?.saves_the_store(&snapshot)?;
    let rng = SmallRng::seed_from_u64(seed);
    let mut chaos = Chaos { lab, rng, memory_gib: 8, snapshot, impostors: Vec::new() };
    println!("chaos: seed {seed}, {profile}, {minutes} minutes");
    let mut outcomes = Vec::new();
    // An error is one of the lab, and ends it; what was seen until then is told all the same.
    let ended = chaos.play(begun, minutes, &mut outcomes);
    let (readings, doubles) = (chaos.lab.check().readings(), chaos.lab.check().violations().len());
    println!("{}", judge::table(&outcomes));
    let wrong = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty()).count();
    let healthy: usize = outcomes.iter().map(|outcome| outcome.seen.ended).sum();
    println!(
        "{} faults, {readings} readings of /proc, {doubles} double runs, {healthy} healthy VMs ended, {wrong} not as \
         expected",
        outcomes.len()
    );
    // Only what `finish` ends loses its logs.
    ended?;
    if !judge::passed(&outcomes, doubles) {
        return Ok(false);
    }
    chaos.lab.finish()?;
    Ok(true)
}

fn setting<T: std::str::FromStr>(name: &str, default: &str) -> Result<T> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|_| anyhow!("{name} is '{text}', which makes no sense here"))
}

impl Chaos {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..to))
    }

    fn play(&mut self, begun: Instant, minutes: f64, outcomes: &mut Vec<Outcome<Fault>>) -> Result<()> {
        let faults = Fault::named(&setting::<String>("FAULTS", "")?);
        ensure!(!faults.is_empty(), "FAULTS names none");
        while begun.elapsed().as_secs_f64() < minutes * 60.0 {
            let fault = faults[self.rng.random_range(0..faults.len())];
            let outcome = self.one(fault)?;
            let took = outcome.seen.took.map_or_else(|| "-".to_owned(), |took| format!("{took:.2?}"));
            let came =
                if outcome.wrong.is_empty() { "as expected".to_owned() } else { outcome.wrong.join("; ") };
            println!("{:7.1} s  {fault:?}: {took}; {came}", begun.elapsed().as_secs_f64());
            let rests = outcome.seen.after.is_ok();
            outcomes.push(outcome);
            ensure!(rests, "the cluster does not come to rest: another fault would tell nothing");
        }
        Ok(())
    }

    /// Does one fault, from a cluster at rest to a cluster at rest. An error is one of the lab; a fault of the product
    /// is told.
    fn one(&mut self, fault: Fault) -> Result<Outcome<Fault>> {
        let (owner, qemu) = {
            let owner = self.lab.settled(SETTLE_LIMIT)?;
            (owner.name.clone(), owner.pid_of_qemu()?.context("no QEMU on the owner")?)
        };
        let bound = self.lab.failover_bound()?;
        let length = self.millis(500, 9_000);
        let brief = self.millis(300, 2_000);
        let bystander = self.rng.random_range(0..2);
        let scene = Scene { owner, qemu, bystander, length, brief };
        let (doubles, ended) = (self.lab.check().violations().len(), self.lab.check().ended());
        let at = Instant::now();
        let mut seen = Seen {
            before: qemu,
            took: None,
            bound,
            after: Err("it was not looked at".to_owned()),
            doubles: 0,
            ended: 0,
            trouble: None,
        };
        let came = self.inflict(fault, &scene).and_then(|done| {
            let done = done.unwrap_or(Inflicted { at, process: qemu, took: None });
            seen.before = done.process;
            (seen.took, seen.bound) = done.took.map_or((None, bound), |(took, bound)| (Some(took), bound));
            self.watch(fault, done.at, done.process, bound)
        });
        let mended = self.mend();
        seen.after = self.at_rest();
        seen.doubles = self.lab.check().violations().len() - doubles;
        seen.ended = (self.lab.check().ended() - ended).saturating_sub(fault.ends());
        match came.and_then(|took| mended.map(|()| took)) {
            Ok(took) => seen.took = took.or(seen.took),
            Err(error) => (seen.took, seen.trouble) = (None, Some(format!("{error:#}"))),
        }
        if fault == Fault::ByHand(Act::StorePutBack) && seen.after.is_ok() {
            self.host(&scene.owner)?.saves_the_store(&self.snapshot)?;
        }
        Ok(Outcome::of(fault, fault.expected(), seen))
    }

    /// The VM's process once the cluster has settled, or why it has not.
    fn at_rest(&self) -> Result<i32, String> {
        let settled = self.lab.settled(SETTLE_LIMIT);
        let process = settled.and_then(|owner| owner.pid_of_qemu()?.context("no QEMU on the owner"));
        process.map_err(|error| format!("{error:#}"))
    }

    fn host(&self, name: &str) -> Result<&Host> {
        self.lab.named(name)
    }

    /// The owner, and the bystander that is meant.
    fn owner_and_bystander(&self, scene: &Scene) -> Result<(&Host, &Host)> {
        let owner = self.host(&scene.owner)?;
        Ok((owner, self.lab.others(owner).nth(scene.bystander).context("no bystander")?))
    }

    /// The processes of the VM, each with its host.
    fn alive(&self) -> Vec<(String, i32)> {
        self.lab.check().alive().into_iter().map(|copy| (copy.host, copy.pid)).collect()
    }

    /// Looks on while the outcome comes. Returns the time of a recovery. An error: something happened meanwhile that
    /// must not, or did not happen though it must.
    fn watch(&self, fault: Fault, at: Instant, qemu: i32, bound: Duration) -> Result<Option<Duration>> {
        match fault.expected() {
            Expected::Recovers => Ok(Some(self.lab.recovered(at, FAILOVER_LIMIT)?.took)),
            Expected::Untouched => {
                // Longer than any deadline that may still be open.
                wait::stays("the VM's process", bound, || self.is_there(qemu))?;
                Ok(None)
            }
            Expected::Runs => {
                // Wherever it is by then, and once what was begun is over.
                pass(Duration::from_secs(4))?;
                self.lab.running_host(bound + FAILOVER_LIMIT)?;
                Ok(None)
            }
        }
    }

    fn mend(&mut self) -> Result<()> {
        self.end_impostors();
        for host in self.lab.hosts() {
            if !host.is_on() {
                host.power_on()?;
                continue;
            }
            host.plug_cables()?;
            for service in ["consul", "libvirtd", "keeper", "controller"] {
                host.start(service)?;
                host.unhang(service).ok();
            }
        }
        self.lab.wait_until_up(SETTLE_LIMIT)?;
        self.lab.hosts().iter().try_for_each(|host| self.lab.ended_by_hand(host, SETTLE_LIMIT).map(drop))
    }
}

/// Lets time pass, on purpose: the length of a fault.
fn pass(span: Duration) -> Result<()> {
    wait::stays("nothing", span, || Ok(()))
}
