//! The crash matrix. One day of a cluster, the same each time, is played once for every call that is made in it and
//! every way in which that call can go wrong. It hits what no seed happens to hit.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Fault;
use super::gate::CallFault;
use super::operator::Profile;
use super::{Report, Simulation};

/// The faults of the day, each after so many seconds: a start, a dead QEMU, a failover, the return of the node, a stop
/// and a start, a change of the document and of the timings, a guest that powers off, a live migration.
fn day(simulation: &Simulation) -> Vec<(f64, Fault)> {
    let mut nodes = simulation.nodes.keys().cloned();
    let Some(first) = nodes.next() else { return Vec::new() };
    let Some(last) = nodes.next_back() else { return Vec::new() };
    vec![
        (2.0, Fault::QemuDies),
        (4.0, Fault::PowerLoss(first.clone())),
        (13.0, Fault::PowerOn(first.clone())),
        (15.0, Fault::Stop(None)),
        (19.0, Fault::Start),
        (21.0, Fault::Apply { profile: Some(Profile::Balanced), memory_gib: 12 }),
        (22.0, Fault::GuestPowersOff),
        (25.0, Fault::Apply { profile: Some(Profile::Fast), memory_gib: 9 }),
        (26.0, Fault::Migrate(last)),
        (30.0, Fault::Migrate(first)),
    ]
}

/// The end of the day. By then whatever a crash took down is up again.
const END: Duration = Duration::from_secs(34);

/// The number of calls in a day on which nothing goes wrong.
pub fn calls(seed: u64) -> u64 {
    let (_, calls) = run(seed, None);
    calls
}

/// Plays the day with this fault in that call. The last line of the log says which call it was.
pub fn play(seed: u64, call: u64, fault: CallFault) -> Report {
    run(seed, Some((call, fault))).0
}

fn run(seed: u64, target: Option<(u64, CallFault)>) -> (Report, u64) {
    let mut calls = 0;
    let counted = &mut calls;
    let report = super::under_virtual_time(seed, async move {
        let simulation = Simulation::new(seed);
        if let Some((call, fault)) = target {
            simulation.gate.arm(call, fault);
        }
        let gate = Arc::clone(&simulation.gate);
        let report = simulation.live_the_day().await;
        *counted = gate.passed();
        report
    });
    (report, calls)
}

impl Simulation {
    async fn live_the_day(mut self) -> Report {
        let _beside = self.beside();
        self.begin(Profile::Fast);
        for (at, fault) in day(&self) {
            self.wait_until(self.start + Duration::from_secs_f64(at)).await;
            if self.violated() {
                break;
            }
            self.inflict(&fault);
        }
        self.wait_until(self.start + END).await;
        self.gate.disarm();
        while let (false, Some(last)) = (self.violated(), self.mends.iter().map(|(due, _)| *due).max()) {
            self.wait_until(last).await;
        }
        let settled = self.settle().await;
        if let Some(met) = self.gate.met() {
            self.note(format_args!("met: {met}"));
        }
        self.end(settled)
    }
}
