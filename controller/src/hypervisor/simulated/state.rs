//! The state of the simulated world: its hosts, and what falls due by itself. It is synchronous: it never waits, and
//! reads no clock.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::{NodeName, VmName};

use super::host::{Host, Process};
use super::request::Request;
use super::{Copy, Delays, DoubleExecution, StaleResume};
use crate::hypervisor::{MigrationJob, OffReason, Origin};

/// Something that happens by itself when its time has come.
#[derive(Debug)]
pub(super) enum Due {
    /// A migration is as far as stopping the source, or as far as ending it.
    Switch {
        from: NodeName,
        id: Uuid,
    },
    Finish {
        from: NodeName,
        id: Uuid,
    },
    Request {
        node: NodeName,
        boot: u64,
        request: Request,
        /// The process that was there when it was asked.
        process: Option<u64>,
    },
    GuestOff {
        node: NodeName,
        process: u64,
    },
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) name: VmName,
    pub(super) uuid: Uuid,
    /// The moment that everything was last settled for.
    pub(super) now: Instant,
    pub(super) hosts: BTreeMap<NodeName, Host>,
    pub(super) due: BTreeMap<(Instant, u64), Due>,
    /// The last number given to a process or a thing due.
    pub(super) counter: u64,
    pub(super) image_locks: bool,
    pub(super) image_locked_until: Option<Instant>,
    pub(super) double_executions: Vec<DoubleExecution>,
    /// Resumes of a guest whose memory was older than its disk.
    pub(super) stale_resumes: Vec<StaleResume>,
    /// The moment when a process last stopped executing, by node.
    pub(super) last_executed: BTreeMap<NodeName, Instant>,
}

impl State {
    pub(super) fn new(name: VmName, uuid: Uuid, now: Instant) -> Self {
        Self {
            name,
            uuid,
            now,
            hosts: BTreeMap::new(),
            due: BTreeMap::new(),
            counter: 0,
            image_locks: true,
            image_locked_until: None,
            double_executions: Vec::new(),
            stale_resumes: Vec::new(),
            last_executed: BTreeMap::new(),
        }
    }

    pub(super) fn host(&mut self, node: &NodeName) -> &mut Host {
        self.hosts.entry(node.clone()).or_insert_with(Host::new)
    }

    pub(super) fn changes(&mut self, node: &NodeName) -> watch::Receiver<u64> {
        self.host(node).changes.subscribe()
    }

    pub(super) fn delays(&mut self, node: &NodeName) -> Delays {
        self.host(node).delays
    }

    pub(super) fn boot(&mut self, node: &NodeName) -> u64 {
        self.host(node).boot
    }

    pub(super) fn copies(&self) -> Vec<Copy> {
        let processes = self.hosts.iter().filter_map(|(node, host)| Some((node, host.process.as_ref()?)));
        processes
            .map(|(node, process)| Copy {
                node: node.clone(),
                process: process.number,
                executing: process.executing(),
                may_write: process.killed && process.ran,
                incoming: process.origin == Origin::Migrated,
                generation: process.generation,
                started: process.started,
            })
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does what has fallen due by `now`, in order.
    pub(super) fn settle(&mut self, now: Instant) {
        self.now = now;
        while let Some(entry) = self.due.first_entry() {
            let at = entry.key().0;
            if at > now {
                return;
            }
            let due = entry.remove();
            if let Some(asleep) = self.waits_for(&due) {
                self.host(&asleep).postponed.push(due);
                continue;
            }
            match due {
                Due::Switch { from, id } => self.switch(&from, id, at),
                Due::Finish { from, id } => self.finish(&from, id, at),
                Due::GuestOff { node, process } => {
                    self.guest_off(&node, Some(process));
                }
                Due::Request { node, boot, request, process } => {
                    // Nobody waits for the answer any more; what it did shows when somebody looks.
                    let host = self.host(&node);
                    // Of a guest it is asked through the monitor or the agent of the process that was there.
                    let another = matches!(request, Request::Shutdown) && host.number() != process;
                    if host.powered && host.boot == boot && !another {
                        drop(self.perform(&node, &request, at));
                    }
                }
            }
        }
    }

    /// The suspended host without which this cannot happen, if there is one.
    fn waits_for(&self, due: &Due) -> Option<NodeName> {
        let suspended = |node: &NodeName| self.hosts.get(node).is_some_and(|host| host.suspended);
        let node = match due {
            Due::Request { node, .. } | Due::GuestOff { node, .. } => node,
            Due::Switch { from, .. } | Due::Finish { from, .. } => {
                let moving = self.hosts.get(from).and_then(|host| host.moving.as_ref());
                match moving {
                    Some(moving) if suspended(&moving.to) => &moving.to,
                    _ => from,
                }
            }
        };
        suspended(node).then(|| node.clone())
    }

    pub(super) fn later(&mut self, at: Instant, due: Due) {
        self.counter += 1;
        self.due.insert((at, self.counter), due);
    }

    pub(super) fn last_end(&mut self, node: &NodeName) -> Option<OffReason> {
        let host = self.host(node);
        host.process.is_none().then_some(host.ended).flatten()
    }

    pub(super) fn end_before_this(&mut self, node: &NodeName) -> Option<OffReason> {
        let host = self.host(node);
        host.process.as_ref().filter(|process| !process.killed).and(host.ended)
    }

    /// Sets the definition on the disk of `node` from which the VM can be started.
    pub(super) fn define(&mut self, node: &NodeName, defined: bool, autostart: bool) {
        let host = self.host(node);
        if (host.defined, host.autostart) != (defined, autostart) {
            (host.defined, host.autostart) = (defined, autostart);
            host.changed();
        }
    }

    /// Notes that a process there has just begun to execute, so that every copy that executes elsewhere is one too
    /// many.
    pub(super) fn executes_beside_others(&mut self, node: &NodeName, now: Instant) {
        let others = self.copies().into_iter().filter(|copy| copy.executing && copy.node != *node);
        let doubles: Vec<DoubleExecution> = others
            .map(|other| DoubleExecution { at: now, first: other.node, second: node.clone() })
            .collect();
        self.double_executions.extend(doubles);
    }

    /// Notes that a process there has executed until now, if one does.
    pub(super) fn executed_until_now(&mut self, node: &NodeName) {
        if self.host(node).process.as_ref().is_some_and(Process::executing) {
            self.last_executed.insert(node.clone(), self.now);
        }
    }

    pub(super) fn job(&mut self, node: &NodeName) -> MigrationJob {
        self.host(node).job.clone()
    }

    pub(super) fn note_job(&mut self, node: &NodeName, job: MigrationJob) {
        let host = self.host(node);
        host.job = job;
        host.changed();
    }

    pub(super) fn process_at(&mut self, node: &NodeName, number: u64) -> Option<&mut Process> {
        let host = self.host(node);
        if !host.powered {
            return None;
        }
        host.process.as_mut().filter(|process| process.number == number && !process.killed)
    }
}
