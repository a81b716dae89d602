//! The deadline, and what happens when it passes: every copy of the VM on this node is killed, for as long as the
//! lease is not valid.
//!
//! The thread reads one atomic, sleeps on `CLOCK_BOOTTIME`, reads /proc and kills. It takes no lock, writes no log,
//! speaks to no other process and does no other I/O. So it waits for nothing that hangs elsewhere.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use tokio::sync::Notify;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::{Clock, Moment};

use super::Ended;
use super::copies::{Copies, VmCopy};
use super::killing::{Killing, Report, log};
use super::pauses::{self, SecondClock};

/// The pause between two rounds of killing: a tenth of the smallest K, so that a start racing with the deadline dies in
/// time.
const TICK: Duration = Duration::from_millis(50);

/// The pause between two rounds once it has been quiet: still well inside the smallest K, at a quarter of the cost. A
/// node may be without a lease for days.
const CALM_TICK: Duration = Duration::from_millis(200);

/// The time after which it is quiet: by then a start that was asked for while the lease was valid has appeared or
/// failed.
pub(super) const CALM_AFTER: Duration = Duration::from_secs(30);

/// The thing to do at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforce {
    /// Leave every copy alone until then.
    Valid { until: Moment },
    /// Kill every copy. They should have been dead for this long (since boot, where there never was a lease).
    Kill { overdue: Duration },
}

pub fn enforce(now: Moment, deadline: Option<Moment>) -> Enforce {
    match deadline {
        Some(until) if now < until => Enforce::Valid { until },
        passed => Enforce::Kill { overdue: now.since(passed.unwrap_or_default()) },
    }
}

/// The pause after a round: longer once the lease has long been over and no copy is left.
pub(super) fn pause(overdue: Duration, clear: bool) -> Duration {
    if clear && overdue > CALM_AFTER { CALM_TICK } else { TICK }
}

/// The state that the two sides share: the renewing side writes the deadline, the enforcing side obeys it.
#[derive(Debug)]
pub struct Enforcement {
    /// The deadline in nanoseconds of `CLOCK_BOOTTIME`; 0 is "not valid".
    deadline: AtomicU64,
    kill_within: AtomicU64,
    /// The earliest moment when others may fence, in nanoseconds of `CLOCK_BOOTTIME`. For the watchdog.
    fence: AtomicU64,
    /// The moment when a round last found no copy alive, while the lease was not valid.
    clear: AtomicU64,
    /// The number of copies that were killed, and the moment of the last of them.
    ended: AtomicU64,
    ended_at: AtomicU64,
    /// The time for which this host stood still without its clock counting it, all in all, and when that was last
    /// noticed.
    paused: AtomicU64,
    woke: AtomicU64,
    lowered: Notify,
    bell: Option<OwnedFd>,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            deadline: AtomicU64::new(0),
            kill_within: AtomicU64::new(nanos(LeaseTimings::BALANCED.kill())),
            fence: AtomicU64::new(0),
            clear: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            ended_at: AtomicU64::new(0),
            paused: AtomicU64::new(0),
            woke: AtomicU64::new(0),
            lowered: Notify::new(),
            bell: None,
        }
    }
}

impl Enforcement {
    /// Makes it with a bell that wakes [`start`]'s thread.
    pub fn with_bell() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell: Some(bell), ..Self::default() })
    }

    /// Puts this deadline and K in force. When it returns, no round of killing can miss them.
    pub fn publish(&self, deadline: Option<Moment>, kill_within: Duration) {
        self.kill_within.store(nanos(kill_within), Ordering::SeqCst);
        let new = deadline.map_or(0, Moment::as_nanos);
        let old = self.deadline.swap(new, Ordering::SeqCst);
        if new < old {
            self.ring();
        }
    }

    fn ring(&self) {
        self.lowered.notify_one();
        if let Some(bell) = &self.bell {
            // Fails only when the bell is ringing already.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }

    /// Notes that this host stood still for so long and its clock did not count it: what is in force was granted before
    /// that. The order of the two writes matters: a thread that publishes a deadline in between finds afterwards that
    /// there was a pause it did not know of.
    pub fn paused(&self, woke: Moment, by: Duration) {
        self.woke.store(woke.as_nanos(), Ordering::SeqCst);
        self.paused.fetch_add(nanos(by), Ordering::SeqCst);
        let closer = |deadline: u64| (deadline > 0).then(|| deadline.saturating_sub(nanos(by)).max(1));
        // Fails only where nothing is in force.
        let _ = self.deadline.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closer);
        let _ = self.fence.fetch_update(Ordering::SeqCst, Ordering::SeqCst, closer);
        self.ring();
    }

    /// The length of all pauses that were noticed, and the moment of the last.
    pub fn pauses(&self) -> (Duration, Moment) {
        let all = Duration::from_nanos(self.paused.load(Ordering::SeqCst));
        (all, Moment::from_nanos(self.woke.load(Ordering::SeqCst)))
    }

    /// Sets the moment from which others may fence. None: it is not known, so it is taken to be long past.
    pub fn fenced_from(&self, fence: Option<Moment>) {
        self.fence.store(fence.map_or(0, Moment::as_nanos), Ordering::SeqCst);
    }

    pub fn fence(&self) -> Moment {
        Moment::from_nanos(self.fence.load(Ordering::SeqCst))
    }

    pub fn deadline(&self) -> Option<Moment> {
        match self.deadline.load(Ordering::SeqCst) {
            0 => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    /// K in force.
    pub fn kill_within(&self) -> Duration {
        Duration::from_nanos(self.kill_within.load(Ordering::SeqCst))
    }

    /// The moment when a round of killing last ended with no copy left. A thread that hangs, a process that will not
    /// die and a process table that cannot be read all show in this growing old.
    pub fn last_clear(&self) -> Moment {
        Moment::from_nanos(self.clear.load(Ordering::SeqCst))
    }

    #[cfg(test)]
    pub fn seen_clear(&self, at: Moment) {
        self.clear.store(at.as_nanos(), Ordering::SeqCst);
    }

    /// The copies that were killed so far.
    pub fn ended(&self) -> Option<Ended> {
        let count = self.ended.load(Ordering::SeqCst);
        (count > 0).then(|| Ended { count, at: Moment::from_nanos(self.ended_at.load(Ordering::SeqCst)) })
    }

    /// Does one round. Returns whether no copy is left, and what to tell of it.
    fn round(&self, killing: &mut Killing, copies: &dyn Copies, now: Moment) -> (bool, Vec<Report>) {
        let round = killing.round(copies, now, self.kill_within());
        let killed = round.reports.iter().filter(|report| matches!(report, Report::Killed { .. })).count();
        if killed > 0 {
            // In this order: whoever sees the count sees its moment, or a later one.
            self.ended_at.store(now.as_nanos(), Ordering::SeqCst);
            self.ended.fetch_add(killed as u64, Ordering::SeqCst);
        }
        if round.clear {
            self.clear.store(now.as_nanos(), Ordering::SeqCst);
        }
        (round.clear, round.reports)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The other ends of what the enforcing thread hears and says; neither ever waits.
#[derive(Debug)]
pub struct Lines {
    /// Copies that other threads saw while the lease was valid.
    pub told: mpsc::Receiver<Vec<VmCopy>>,
    pub reports: mpsc::Sender<Report>,
}

/// Starts the enforcing thread, which sees by `second` what its own clock does not count. The thread never ends, and
/// takes the process with it if it should panic. The second value says why it has no real-time priority, if it has
/// none.
pub fn start(
    enforcement: Arc<Enforcement>,
    copies: impl Copies,
    lines: Lines,
    second: Option<SecondClock>,
) -> io::Result<(thread::JoinHandle<Infallible>, Option<io::Error>)> {
    let alarm = Alarm::new()?;
    let (say, hear) = mpsc::sync_channel(1);
    let thread =
        thread::Builder::new().name("enforce".to_owned()).stack_size(256 << 10).spawn(move || {
            let _abort = AbortOnPanic;
            // The receiver waits for exactly this message.
            let _ = say.send(be_real_time());
            run(&enforcement, &copies, &lines, &alarm, second)
        })?;
    let priority = hear.recv().map_err(io::Error::other)?;
    Ok((thread, priority.err()))
}

fn run(
    enforcement: &Enforcement,
    copies: &dyn Copies,
    lines: &Lines,
    alarm: &Alarm,
    mut second: Option<SecondClock>,
) -> Infallible {
    let clock = Clock::Boottime;
    let mut killing = Killing::default();
    loop {
        for copies in lines.told.try_iter() {
            killing.told(copies);
        }
        let now = clock.now();
        if let Some(by) = second.as_mut().and_then(|second| second.see(now, pauses::count())) {
            enforcement.paused(now, by);
        }
        let wake = match enforce(now, enforcement.deadline()) {
            Enforce::Valid { until } if second.is_some() => until.min(now + pauses::LOOK),
            Enforce::Valid { until } => until,
            Enforce::Kill { overdue } => {
                let (clear, reports) = enforcement.round(&mut killing, copies, now);
                for report in reports {
                    // Nobody listening is no reason to stop killing.
                    let _ = lines.reports.send(report);
                }
                clock.now() + pause(overdue, clear)
            }
        };
        alarm.wait(wake, enforcement.bell.as_ref());
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        // Reached by unwinding only: a keeper that cannot kill must not go on renewing. systemd starts another.
        std::process::abort();
    }
}

/// A timer that counts suspend.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer })
    }

    /// Waits until then, or until the bell rings. It may return early, but is never late for a reason of its own.
    pub(super) fn wait(&self, until: Moment, bell: Option<&OwnedFd>) {
        if self.try_wait(until, bell).is_err() {
            thread::park_timeout(TICK);
        }
    }

    fn try_wait(&self, until: Moment, bell: Option<&OwnedFd>) -> rustix::io::Result<()> {
        // An absolute time of 0 would disarm it.
        let nanos = until.as_nanos().max(1);
        let at = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or_default(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        let mut sources = vec![PollFd::new(&self.timer, PollFlags::IN)];
        sources.extend(bell.map(|bell| PollFd::new(bell, PollFlags::IN)));
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if let Some(bell) = bell {
            // Empty unless it rang.
            let _ = rustix::io::read(bell, &mut [0_u8; 8]);
        }
        Ok(())
    }
}

/// Sets SCHED_FIFO for the calling thread, at the lowest of the real-time priorities: above everything ordinary.
fn be_real_time() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    #[expect(unsafe_code, reason = "rustix has no sched_setscheduler")]
    // SAFETY: the call reads the parameter, which outlives it, and changes only the scheduling of this thread (0).
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Does the same enforcement as a task, for many nodes in one process. It never returns; dropping it is the keeper's
/// death.
pub async fn enforce_task(clock: Clock, enforcement: Arc<Enforcement>, copies: Arc<dyn Copies>) {
    let mut killing = Killing::default();
    loop {
        let now = clock.now();
        match enforce(now, enforcement.deadline()) {
            Enforce::Valid { until } => {
                tokio::select! {
                    biased;
                    () = enforcement.lowered.notified() => {}
                    () = clock.sleep_until(until) => {}
                }
            }
            Enforce::Kill { overdue } => {
                let (clear, reports) = enforcement.round(&mut killing, copies.as_ref(), now);
                reports.iter().for_each(log);
                clock.sleep_until(now + pause(overdue, clear)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
