//! Does what people do past zsha, to libvirt and to the store, and what a neighbour does who means harm.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use zsha_e2e::guest::DOMAIN;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND};
use zsha_e2e::{Host, wait};

use crate::judge::Expected;
use crate::{Chaos, Inflicted, SEEN_WITHIN, Scene, pass};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    /// A person gives `virsh migrate` to a bystander.
    Moved,
    /// The same to a bystander whose controller is down, and comes back.
    MovedWithoutController,
    Destroyed,
    /// A person gives `virsh save`: the guest is gone, and its memory is in a file.
    Saved,
    Paused,
    /// A person gives `virsh create` for a second domain of the VM's UUID on a bystander.
    StartedTwice,
    StartedTwiceWithoutController,
    /// A person gives `virsh define` and `virsh autostart` on the owner, which then loses its power and boots again.
    LeftToAutostart,
    OwnersLeaseOverwritten,
    OwnersLeaseDeleted,
    BystandersLeaseOverwritten,
    BystandersLeaseDeleted,
    /// A snapshot is restored while every controller is down.
    StorePutBack,
    /// Everything is deleted, and the document applied, while every controller is down.
    StoreEmptied,
    /// A neighbour begins hundreds of requests to the owner's page, and finishes none.
    HalfOpenRequests,
    /// A process of the user `nobody` is called and looks like the VM's QEMU, which has just died.
    Impostor,
}

impl Act {
    pub(crate) const ALL: [Self; 16] = [
        Self::Moved,
        Self::MovedWithoutController,
        Self::Destroyed,
        Self::Saved,
        Self::Paused,
        Self::StartedTwice,
        Self::StartedTwiceWithoutController,
        Self::LeftToAutostart,
        Self::OwnersLeaseOverwritten,
        Self::OwnersLeaseDeleted,
        Self::BystandersLeaseOverwritten,
        Self::BystandersLeaseDeleted,
        Self::StorePutBack,
        Self::StoreEmptied,
        Self::HalfOpenRequests,
        Self::Impostor,
    ];

    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Destroyed | Self::Saved | Self::LeftToAutostart | Self::Impostor => Expected::Recovers,
            Self::Moved
            | Self::MovedWithoutController
            | Self::Paused
            | Self::StartedTwice
            | Self::StartedTwiceWithoutController
            | Self::OwnersLeaseOverwritten
            | Self::OwnersLeaseDeleted
            | Self::BystandersLeaseOverwritten
            | Self::BystandersLeaseDeleted
            | Self::StorePutBack
            | Self::StoreEmptied
            | Self::HalfOpenRequests => Expected::Untouched,
        }
    }

    /// The number of the VM's processes that it ends.
    pub(crate) fn ends(self) -> usize {
        let moves = matches!(self, Self::Moved | Self::MovedWithoutController);
        usize::from(moves || self.expected() == Expected::Recovers)
    }
}

/// The time until a copy begun by hand where the VM is not to be is ended: the node's keeper has looked, or its
/// controller.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// The number of requests: as many as took every descriptor of a controller when its page was unlimited.
const HALF_OPEN: usize = 1000;
/// The limit of descriptors: as few as a process has by default.
const DESCRIPTORS: &str = "--nofile=1024:1024";
/// The time for which the disk is gone. A disk that is not reached costs the VM its process after 30 s, and it takes 10
/// s and a look to see that.
const HELD_FOR: Duration = Duration::from_secs(50);
/// The number of requests begun at a time, so that the VM is looked at in between.
const AT_A_TIME: usize = 100;
const NONSENSE: &str = "{\"this\": \"is no lease\"";

impl Chaos {
    /// Does the act. The VM's process afterwards is the one returned, unless it is to be started again.
    pub(crate) fn by_hand(&mut self, act: Act, scene: &Scene) -> Result<Inflicted> {
        if act == Act::Impostor {
            return self.impostor(scene);
        }
        let (owner, other) = self.owner_and_bystander(scene)?;
        let lease = |of: &Host| format!("zsha/lab/leases/{}", of.name);
        let done = Inflicted::now(scene.qemu);
        match act {
            Act::Moved => {
                let process = owner.migrates_past_zsha(other, &["--live"])?;
                self.claimed(other, process)
            }
            Act::MovedWithoutController => self.moved_without_controller(owner, other, scene.length),
            Act::Destroyed => owner.virsh(&["destroy", DOMAIN]).map(|_| done),
            Act::Saved => {
                let file = self.lab.dir().join("mnvm.saved").display().to_string();
                owner.virsh(&["save", DOMAIN, &file]).map(|_| done)
            }
            Act::Paused => {
                owner.virsh(&["suspend", DOMAIN])?;
                pass(scene.brief)?;
                owner.virsh(&["resume", DOMAIN]).map(|_| done)
            }
            Act::StartedTwice => self.started_twice(owner, other, scene),
            Act::StartedTwiceWithoutController => {
                other.stop("controller")?;
                self.started_twice(owner, other, scene)
            }
            Act::LeftToAutostart => {
                // Else it would forget the definition at once.
                owner.hang("controller")?;
                owner.defines_by_hand(owner)?;
                let at = owner.power_off()?;
                Ok(Inflicted { at, ..done })
            }
            Act::OwnersLeaseOverwritten => owner.put_key(&lease(owner), NONSENSE).map(|()| done),
            Act::OwnersLeaseDeleted => owner.delete_key(&lease(owner)).map(|()| done),
            Act::BystandersLeaseOverwritten => owner.put_key(&lease(other), NONSENSE).map(|()| done),
            Act::BystandersLeaseDeleted => owner.delete_key(&lease(other)).map(|()| done),
            Act::StorePutBack => self.store_put_back(owner, scene).map(|()| done),
            Act::StoreEmptied => self.store_emptied(owner, scene).map(|()| done),
            Act::HalfOpenRequests => self.half_open_requests(owner, other, scene.qemu).map(|()| done),
            Act::Impostor => Ok(done),
        }
    }

    /// Moves the VM to a node whose controller is down, which then comes back.
    fn moved_without_controller(&self, owner: &Host, other: &Host, length: Duration) -> Result<Inflicted> {
        other.stop("controller")?;
        let process = owner.migrates_past_zsha(other, &["--live", "--persistent"])?;
        self.is_the_only_one(process, length)?;
        other.start("controller")?;
        self.claimed(other, process)
    }

    /// Starts a second copy of the owner's VM on another node, and waits until it is ended.
    fn started_twice(&self, owner: &Host, other: &Host, scene: &Scene) -> Result<Inflicted> {
        other.starts_by_hand(owner)?;
        let took = self.lab.ended_by_hand(other, FAILOVER_LIMIT)?;
        Ok(Inflicted { took: Some((took, ENDED_WITHIN)), ..Inflicted::now(scene.qemu) })
    }

    /// Restores the snapshot while every controller is down.
    fn store_put_back(&self, owner: &Host, scene: &Scene) -> Result<()> {
        self.lab.stop_controllers()?;
        owner.restores_the_store(&self.snapshot)?;
        self.is_the_only_one(scene.qemu, scene.length)?;
        self.lab.start_controllers()
    }

    /// Deletes everything, and applies the document, while every controller is down.
    fn store_emptied(&self, owner: &Host, scene: &Scene) -> Result<()> {
        self.lab.stop_controllers()?;
        owner.wipes_the_store()?;
        self.is_the_only_one(scene.qemu, scene.length)?;
        self.lab.apply(&self.lab.document(), "chaos emptied the store")?;
        self.lab.start_controllers()
    }

    /// Holds half requests to the owner's page open, while its controller has few descriptors.
    fn half_open_requests(&self, owner: &Host, other: &Host, qemu: i32) -> Result<()> {
        let controller = owner.services()?["controller"].pid.context("no controller")?.to_string();
        owner.ok(&["prlimit", "--pid", &controller, DESCRIPTORS])?;
        let mut flood = Vec::new();
        wait::stays("the VM's process", HELD_FOR, || {
            keep_up(&mut flood, other, owner);
            self.is_there(qemu)
        })
    }

    /// Waits until the VM is on the node that was to get it, and is recorded there in no more time than a failover
    /// takes.
    fn claimed(&self, on: &Host, process: i32) -> Result<Inflicted> {
        let at = Instant::now();
        self.lab.recorded(on, FAILOVER_LIMIT)?;
        let took = Some((at.elapsed(), self.lab.failover_bound()?));
        Ok(Inflicted { at, process, took })
    }

    /// Starts an impostor on the owner or on a bystander. No keeper may believe that it is a copy. Then the VM dies.
    fn impostor(&mut self, scene: &Scene) -> Result<Inflicted> {
        let owner = self.host(&scene.owner)?;
        let uuid = owner.virsh(&["domuuid", DOMAIN])?.trim().to_owned();
        let on = if scene.length.as_millis().is_multiple_of(2) {
            Some(owner)
        } else {
            self.lab.others(owner).nth(scene.bystander)
        };
        let on = on.context("no bystander")?;
        on.ok(&["cp", "/bin/sh", "/run/qemu-x"])?;
        let looks_like_it = format!(
            "setpriv --reuid=65534 --regid=65534 --clear-groups \
             /run/qemu-x -c 'while :; do sleep 1; done' -uuid {uuid} </dev/null >/dev/null 2>&1 & echo $!"
        );
        let process = on.ok(&["sh", "-c", &looks_like_it])?.trim().to_owned();
        pass(SEEN_WITHIN)?;
        let at = owner.kill9("qemu")?;
        let impostor = (on.name.clone(), process);
        self.impostors.push(impostor);
        Ok(Inflicted { at, process: scene.qemu, took: None })
    }

    pub(crate) fn end_impostors(&mut self) {
        for (host, process) in std::mem::take(&mut self.impostors) {
            // Where it was taken for a copy it is gone already.
            self.host(&host).and_then(|host| host.ok(&["kill", "-9", &process])).ok();
        }
    }

    pub(crate) fn is_there(&self, process: i32) -> Result<()> {
        let alive = self.alive();
        ensure!(alive.iter().any(|(_, pid)| *pid == process), "it was {process}, now there is {alive:?}");
        Ok(())
    }

    fn is_the_only_one(&self, process: i32, span: Duration) -> Result<()> {
        wait::until("only one process", SECOND, || Ok((self.lab.check().alive().len() == 1).then_some(())))?;
        wait::stays("the VM's process", span, || {
            let alive = self.alive();
            ensure!(alive.len() == 1, "it was {process}, now there is {alive:?}");
            self.is_there(process)
        })
    }
}

/// Keeps half requests open, from one host to the page of another; each one that was closed is made anew.
fn keep_up(open: &mut Vec<TcpStream>, from: &Host, to: &Host) {
    open.retain(|connection| {
        connection.set_nonblocking(true).is_ok()
            && matches!(connection.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    for _ in open.len()..HALF_OPEN.min(open.len() + AT_A_TIME) {
        // One that is not taken now is tried again next time.
        let Ok(mut connection) = from.connect_to_page_of(to) else { return };
        if connection.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n").is_ok() {
            open.push(connection);
        }
    }
}
