//! A situation and what must come of it, as a text that a person writes and the simulator plays: the files of
//! `scenarios/`, one situation each. Lines that begin with `#` say what it is about; every other line is one step.
//!
//! What happens: `power off NODE`, `power on NODE`, `cut NODE`, `mend NODE`, `store down`, `store up`,
//! `controller NODE dies|starts`, `keeper NODE dies|starts`, `node NODE stands still|goes on`,
//! `hypervisor NODE unreachable|hangs|answers`, `starts fail NODE`, `starts work NODE`, `bridge NODE missing|back`,
//! `image locked for N s`, `stale reads NODE`, `fresh reads NODE`, `lease of NODE deleted`, `qemu dies`,
//! `guest powers off`, `migrate to NODE`, `migrations break|lose the answer|work`, `prefer NODE [and fail back]`,
//! `snapshot taken`, `snapshot restored`, `stop [within N s] asked`, `start asked`, `freeze asked`, `resume asked`, `drain NODE`, `uncordon NODE`, `apply PROFILE`, `apply N GiB`,
//! `host NODE shuts down`, `document deleted`, `share NODE hangs|gone|back`, `bridge NODE without carrier`, `seeds refused NODE`, `seeds work NODE`, `kills fail NODE`, `kills work NODE`,
//! `guests ignore shutdown`, `watchdog required`, `watchdog NODE there|missing` (nobody has one at first),
//! `build NODE reads format N`, `apply format N` (a document that no build knows that reads less), `wait N s`.
//! The first step is `begin PROFILE`.
//!
//! What must come of it: `runs on NODE within N s`, `runs within N s`, `stays on NODE for N s` (the very same
//! process), `stops within N s`, `nothing runs for N s`, `owned by NODE for N s` (so says the record), `NODE says within
//! N s: WORDS` (among its faults and what it waits for), `NODE acts on generation N within|for N s`,
//! `NODE goes down within N s` (what `zsha-host` waits for has ended there; then its power goes). The invariants of [`super::check`] are judged all along.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;

use super::faults::Fault;
use super::operator::Profile;
use super::situation::Situation;
use super::{Report, Simulation, TICK, check};
use crate::hypervisor::simulated;

/// One line of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Begin(Profile),
    Happens(Fault),
    Is(Situation),
    Wait(Duration),
    /// The VM runs within this time on this node, or on any.
    Runs(Option<NodeName>, Duration),
    Stays(NodeName, Duration),
    Stops(Duration),
    NothingRuns(Duration),
    Owned(NodeName, Duration),
    Says(NodeName, Duration, String),
    GoesDown(NodeName, Duration),
    /// The node acts on this generation for all of the time, or within it.
    ActsOn {
        node: NodeName,
        generation: u64,
        time: Duration,
        all_along: bool,
    },
}

/// A line that is no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: '{text}' is no step: {why}")]
pub struct NoStep {
    pub line: usize,
    pub text: String,
    pub why: String,
}

/// Reads the steps, each with the line it came from.
pub fn parse(text: &str) -> Result<Vec<(String, Step)>, NoStep> {
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let no_step = |why: String| NoStep { line: number + 1, text: line.to_owned(), why };
        let step = step(&words).map_err(no_step)?;
        if steps.is_empty() != matches!(step, Step::Begin(_)) {
            return Err(no_step("`begin PROFILE` is the first step, and only that".to_owned()));
        }
        steps.push((line.to_owned(), step));
    }
    Ok(steps)
}

fn step(words: &[&str]) -> Result<Step, String> {
    Ok(match words {
        ["begin", it] => Step::Begin(profile(it)?),
        ["wait", n, "s"] => Step::Wait(seconds(n)?),
        ["runs", "on", it, "within", n, "s"] => Step::Runs(Some(node(it)?), seconds(n)?),
        ["runs", "within", n, "s"] => Step::Runs(None, seconds(n)?),
        ["stays", "on", it, "for", n, "s"] => Step::Stays(node(it)?, seconds(n)?),
        ["stops", "within", n, "s"] => Step::Stops(seconds(n)?),
        ["nothing", "runs", "for", n, "s"] => Step::NothingRuns(seconds(n)?),
        [it, "goes", "down", "within", n, "s"] => Step::GoesDown(node(it)?, seconds(n)?),
        ["owned", "by", it, "for", n, "s"] => Step::Owned(node(it)?, seconds(n)?),
        [it, "says", "within", n, "s:", words @ ..] => Step::Says(node(it)?, seconds(n)?, words.join(" ")),
        [it, "acts", "on", "generation", generation, how @ ("within" | "for"), n, "s"] => Step::ActsOn {
            node: node(it)?,
            generation: number(generation)?.into(),
            time: seconds(n)?,
            all_along: *how == "for",
        },
        other => match situation(other)? {
            Some(situation) => Step::Is(situation),
            None => Step::Happens(fault(other)?),
        },
    })
}

fn situation(words: &[&str]) -> Result<Option<Situation>, String> {
    Ok(Some(match words {
        ["share", it, "hangs"] => Situation::ShareHangs(node(it)?),
        ["share", it, "gone"] => Situation::ShareGone(node(it)?),
        ["share", it, "back"] => Situation::ShareBack(node(it)?),
        ["bridge", it, "without", "carrier"] => Situation::NoCarrier(node(it)?),
        ["seeds", "refused", it] => Situation::Seeds(node(it)?, false),
        ["seeds", "work", it] => Situation::Seeds(node(it)?, true),
        ["kills", "fail", it] => Situation::Unkillable(node(it)?, true),
        ["kills", "work", it] => Situation::Unkillable(node(it)?, false),
        ["guests", "ignore", "shutdown"] => Situation::ShutdownsIgnored,
        ["watchdog", "required"] => Situation::WatchdogRequired,
        ["watchdog", it, "there"] => Situation::Watchdog(node(it)?, true),
        ["watchdog", it, "missing"] => Situation::Watchdog(node(it)?, false),
        ["build", it, "reads", "format", n] => Situation::Build(node(it)?, number(n)?),
        ["apply", "format", n] => Situation::ApplyNewer(number(n)?),
        ["host", it, "shuts", "down"] => Situation::HostShutsDown(node(it)?),
        ["document", "deleted"] => Situation::DocumentDeleted,
        _ => return Ok(None),
    }))
}

fn fault(words: &[&str]) -> Result<Fault, String> {
    Ok(match words {
        ["power", "off", it] => Fault::PowerLoss(node(it)?),
        ["power", "on", it] => Fault::PowerOn(node(it)?),
        ["cut", it] => Fault::Cut(node(it)?),
        ["mend", it] => Fault::Mend(node(it)?),
        ["store", "down"] => Fault::StoreDown,
        ["store", "up"] => Fault::StoreUp,
        ["controller", it, "dies"] => Fault::StopController(node(it)?),
        ["controller", it, "starts"] => Fault::StartController(node(it)?),
        ["keeper", it, "dies"] => Fault::StopKeeper(node(it)?),
        ["keeper", it, "starts"] => Fault::StartKeeper(node(it)?),
        ["node", it, "stands", "still"] => Fault::Pause(node(it)?),
        ["node", it, "goes", "on"] => Fault::Continue(node(it)?),
        ["hypervisor", it, "unreachable"] => {
            Fault::Hypervisor(node(it)?, Some(simulated::Fault::Unreachable))
        }
        ["hypervisor", it, "hangs"] => Fault::Hypervisor(node(it)?, Some(simulated::Fault::Hangs)),
        ["hypervisor", it, "answers"] => Fault::Hypervisor(node(it)?, None),
        ["starts", "fail", it] => Fault::StartsFail(node(it)?, true),
        ["starts", "work", it] => Fault::StartsFail(node(it)?, false),
        ["bridge", it, "missing"] => Fault::BridgeMissing(node(it)?),
        ["bridge", it, "back"] => Fault::HostRepaired(node(it)?),
        ["image", "locked", "for", n, "s"] => Fault::ImageLocked(seconds(n)?),
        ["stale", "reads", it] => Fault::Lag(node(it)?),
        ["fresh", "reads", it] => Fault::CatchUp(node(it)?),
        ["lease", "of", it, "deleted"] => Fault::DeleteLease(node(it)?),
        ["migrate", "to", it] => Fault::Migrate(node(it)?),
        ["migrations", "break"] => Fault::Migrations(Some(simulated::MigrationFault::Breaks)),
        ["migrations", "lose", "the", "answer"] => {
            Fault::Migrations(Some(simulated::MigrationFault::AnswerLost))
        }
        ["migrations", "work"] => Fault::Migrations(None),
        ["prefer", it] => Fault::Prefer(node(it)?, false),
        ["prefer", it, "and", "fail", "back"] => Fault::Prefer(node(it)?, true),
        ["snapshot", "taken"] => Fault::Snapshot,
        ["snapshot", "restored"] => Fault::Restore,
        ["qemu", "dies"] => Fault::QemuDies,
        ["guest", "powers", "off"] => Fault::GuestPowersOff,
        ["stop", "asked"] => Fault::Stop(None),
        ["stop", "within", n, "s", "asked"] => Fault::Stop(Some(seconds(n)?)),
        ["freeze", "asked"] => Fault::Frozen(true),
        ["resume", "asked"] => Fault::Frozen(false),
        ["drain", it] => Fault::Drain(node(it)?, true),
        ["uncordon", it] => Fault::Drain(node(it)?, false),
        ["start", "asked"] => Fault::Start,
        ["apply", n, "GiB"] => Fault::Apply { profile: None, memory_gib: number(n)? },
        ["apply", it] => Fault::Apply { profile: Some(profile(it)?), memory_gib: 8 },
        _ => return Err("the head of scenario.rs lists them all".to_owned()),
    })
}

fn node(word: &str) -> Result<NodeName, String> {
    NodeName::new(word).map_err(|error| error.to_string())
}

fn number(word: &str) -> Result<u32, String> {
    word.parse().map_err(|_| format!("'{word}' is no whole number"))
}

fn seconds(word: &str) -> Result<Duration, String> {
    let seconds: f64 = word.parse().map_err(|_| format!("'{word}' is no number"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn profile(word: &str) -> Result<Profile, String> {
    [Profile::Fast, Profile::Balanced, Profile::Patient]
        .into_iter()
        .find(|profile| format!("{profile:?}") == word)
        .ok_or_else(|| format!("'{word}' is no profile; there are Fast, Balanced and Patient"))
}

/// Plays a scenario on this thread, under a clock of its own. The same text and seed give the same log.
pub fn play(text: &str, seed: u64) -> Result<Report, NoStep> {
    let steps = parse(text)?;
    Ok(super::under_virtual_time(seed, async move {
        let simulation = Simulation::new(seed);
        simulation.play(&steps).await
    }))
}

impl Simulation {
    async fn play(mut self, steps: &[(String, Step)]) -> Report {
        let _beside = self.beside();
        for (line, step) in steps {
            if self.violated() {
                break;
            }
            match step {
                Step::Begin(profile) => self.begin(*profile),
                Step::Happens(fault) => self.inflict(fault),
                Step::Is(situation) => self.set_up(situation),
                Step::Wait(time) => self.wait_until(Instant::now() + *time).await,
                Step::Runs(node, limit) => {
                    self.reached(line, *limit, |host| {
                        host.is_some() && node.as_ref().is_none_or(|n| host == Some(n))
                    })
                    .await;
                }
                Step::Stops(limit) => self.reached(line, *limit, |host| host.is_none()).await,
                Step::NothingRuns(time) => self.stays(line, *time, None).await,
                Step::GoesDown(node, limit) => self.goes_down(line, node, *limit).await,
                Step::Owned(node, time) => self.owned(line, node, *time).await,
                Step::Says(node, limit, words) => self.says(line, node, words, *limit).await,
                Step::ActsOn { node, generation, time, all_along } => match all_along {
                    true => self.acts_all_along_on(line, node, *generation, *time).await,
                    false => self.comes_to_act_on(line, node, *generation, *time).await,
                },
                Step::Stays(node, time) => self.stays(line, *time, Some(node)).await,
            }
        }
        // Events are written a little after they happen.
        self.wait_until(Instant::now() + Duration::from_secs(2)).await;
        check::lock(&self.checker).log_events();
        self.end(Duration::ZERO)
    }

    /// Fails unless the VM is where it should be within this time.
    async fn reached(&mut self, line: &str, limit: Duration, is_so: impl Fn(Option<&NodeName>) -> bool) {
        let begun = Instant::now();
        while !self.violated() {
            let host = check::lock(&self.checker).executing().map(|(node, _)| node);
            let took = begun.elapsed();
            if is_so(host.as_ref()) {
                self.note(format_args!("= {line}: after {:.1} s", took.as_secs_f64()));
                return;
            }
            if took >= limit {
                self.violate(format_args!("not so: '{line}'"));
                return;
            }
            self.wait_until(Instant::now() + TICK).await;
        }
    }

    /// Fails unless one process goes on there, or none anywhere, for all of this time.
    async fn stays(&mut self, line: &str, time: Duration, on: Option<&NodeName>) {
        let until = Instant::now() + time;
        let before = check::lock(&self.checker).executing();
        let there = before.as_ref().map(|(node, _)| node) == on;
        while there && !self.violated() && Instant::now() < until {
            self.wait_until(until.min(Instant::now() + TICK)).await;
            if check::lock(&self.checker).executing() != before {
                break;
            }
        }
        if there && Instant::now() >= until {
            self.note(format_args!("= {line}"));
        } else {
            self.violate(format_args!("not so: '{line}'"));
        }
    }

    pub(super) fn violate(&self, what: fmt::Arguments<'_>) {
        check::lock(&self.checker).violations.push(what.to_string());
    }
}
