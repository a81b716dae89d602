//! The conditions of this node: whether it is fit to be given the VM; if not, what is wrong and what to do about it.

use zsha_crds::condition::DRAINED;
use zsha_crds::document::{ImageFormat, Watchdog};
use zsha_crds::{Condition, ConditionKind, ConditionStatus, NodeName, condition};

use super::{devices, stability};
use crate::host::{
    self, Barred, BridgeFact, Content, HostFacts, ImageFact, ImageWant, MountFact, MountWant, Qcow2, SeedFact,
};
use crate::hypervisor::{DomainImage, DomainSpec, Offer};
use crate::intents::Cordon;
use crate::keeper::WatchdogState;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::World;

/// The reason of a condition that cannot be told yet, since the host has not been asked.
const NOT_LOOKED: &str = "NotLooked";
/// The reason of a condition that cannot be told although the host was asked: this process lacks what a look takes.
const COULD_NOT_LOOK: &str = "CouldNotLook";

/// The reason of a node that has the VM emulated.
const EMULATED: &str = "Emulated";

pub(super) type Verdict = (ConditionStatus, &'static str, String);

/// All conditions of this node, the summary first.
pub fn conditions(world: &World) -> Vec<Condition> {
    let parts = [
        (ConditionKind::DocumentKnown, document(world)),
        (ConditionKind::SpecValid, spec(world)),
        (ConditionKind::LeaseValid, lease(world)),
        (ConditionKind::HypervisorReachable, hypervisor(world)),
        (ConditionKind::DomainAccepted, domain_accepted(world)),
        (ConditionKind::MountsReady, host(world, mounts)),
        (ConditionKind::BridgesReady, host(world, bridges)),
        (ConditionKind::ImagePresent, host(world, |desired, facts| disk(world, desired, facts))),
        (ConditionKind::SeedReady, host(world, |desired, facts| seed(&world.me, desired, facts))),
        (ConditionKind::WatchdogReady, watchdog(world)),
        (ConditionKind::Schedulable, schedulable(world)),
        (ConditionKind::Stable, stable(world)),
    ];
    let generation = world.document().map(|d| d.generation);
    let condition = |kind: ConditionKind, (status, reason, message): Verdict| Condition {
        observed_generation: generation,
        ..Condition::new(kind, status, reason, message, world.wall)
    };
    let mut conditions: Vec<_> = parts.into_iter().map(|(kind, verdict)| condition(kind, verdict)).collect();
    conditions.insert(0, condition(ConditionKind::Ready, summary(&conditions)));
    conditions
}

/// The message of the first condition that is not True; None if the node is fit.
pub fn first_fault(conditions: &[Condition]) -> Option<String> {
    conditions.iter().find(|c| counts(c) && !c.is_true()).map(|c| c.message.clone())
}

/// The same message, leaving out what operators asked for.
pub fn first_fault_of_its_own(conditions: &[Condition]) -> Option<String> {
    let own = conditions.iter().filter(|c| !c.is_of(ConditionKind::Schedulable));
    own.filter(|c| counts(c)).find(|c| !c.is_true()).map(|c| c.message.clone())
}

/// True if a node says that it is unfit only because operators keep the VM from it.
pub fn lacks_only_its_operators(conditions: &[Condition]) -> bool {
    let schedulable = condition::find(conditions, ConditionKind::Schedulable).is_none_or(Condition::is_true);
    !schedulable && first_fault_of_its_own(conditions).is_none()
}

/// The message of the first condition that cannot be told just now, except the hypervisor's.
pub fn first_unknown(conditions: &[Condition]) -> Option<String> {
    let unknown = |c: &&Condition| counts(c) && c.status == ConditionStatus::Unknown;
    conditions.iter().find(unknown).map(|c| c.message.clone())
}

/// True if `Ready` rests on this condition. A kind that only a later build knows counts: what it says is not known.
fn counts(part: &Condition) -> bool {
    let is_told = |kind: &&ConditionKind| kind.is_only_told() || **kind == ConditionKind::Ready;
    !ConditionKind::ALL.iter().filter(is_told).any(|kind| part.is_of(*kind))
}

fn summary(parts: &[Condition]) -> Verdict {
    match parts.iter().find(|c| counts(c) && !c.is_true()) {
        None => (ConditionStatus::True, "Fit", "the VM may be placed here".to_owned()),
        Some(fault) => (ConditionStatus::False, "Unfit", fault.message.clone()),
    }
}

fn good(reason: &'static str, message: impl Into<String>) -> Verdict {
    (ConditionStatus::True, reason, message.into())
}

fn bad(reason: &'static str, message: impl Into<String>) -> Verdict {
    (ConditionStatus::False, reason, message.into())
}

fn unknown(reason: &'static str, message: impl Into<String>) -> Verdict {
    (ConditionStatus::Unknown, reason, message.into())
}

/// The verdict on what could not be looked at. It says nothing about that, and so nothing is ended for it.
fn could_not_look(what: impl std::fmt::Display, why: &str) -> Verdict {
    unknown(
        COULD_NOT_LOOK,
        format!(
            "{what} could not be looked at ({why}), which says nothing about it: what runs here is left as it is, and \
             nothing is started here until somebody could look. A shortage of open files, memory or processes on this node \
             is a cause of that"
        ),
    )
}

fn document(world: &World) -> Verdict {
    match &world.desired {
        Observed::Unknown(why) => unknown("NotRead", format!("the document has not been read: {why}")),
        Observed::Known(None) => {
            bad("NoDocument", "there is no document yet: `zsha apply -f FILE` writes one")
        }
        Observed::Known(Some(desired)) if desired.names(&world.me) => {
            good("InForce", format!("generation {} is in force", desired.generation))
        }
        Observed::Known(Some(desired)) => bad(
            "NotAMember",
            format!("the document names {}, and not this node ({})", names(desired), world.me),
        ),
    }
}

fn spec(world: &World) -> Verdict {
    match (&world.spec_problem, &world.desired) {
        (Some(problem), desired) => {
            let in_force = desired.known().and_then(Option::as_ref).map(|desired| desired.generation);
            bad(problem.reason(), problem.told(in_force))
        }
        (None, Observed::Known(Some(_))) => good("Valid", "the stored document is the one in force"),
        (None, Observed::Known(None)) => unknown("NoDocument", "there is no document yet"),
        (None, Observed::Unknown(why)) => {
            unknown("NotRead", format!("the document has not been read: {why}"))
        }
    }
}

fn names(desired: &crate::desired::Desired) -> String {
    desired.order.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn lease(world: &World) -> Verdict {
    if planted::is_planted(Bug::StartWithoutLease) {
        return good("Valid", "a bug is planted");
    }
    match &world.lease {
        Observed::Unknown(why) => unknown("KeeperUnreachable", why.clone()),
        Observed::Known(_) if world.keeper_blind => bad(
            "KeeperBlind",
            "the keeper does not see the VM's process here, so it could not end it in time: it seems to run in a PID \
             namespace of its own; run it as the unit zsha-keeper.service, or its container with the host's (--pid=host)",
        ),
        Observed::Known(verdict) if verdict.valid(world.now) => {
            good("Valid", "the keeper renews this node's lease")
        }
        Observed::Known(verdict) => {
            bad("NotValid", format!("this node's lease is not valid: {}", verdict.message))
        }
    }
}

fn stable(world: &World) -> Verdict {
    match stability::stable(world) {
        (true, reason, message) => good(reason, message),
        (false, reason, message) => bad(reason, message),
    }
}

fn hypervisor(world: &World) -> Verdict {
    match &world.local {
        Observed::Unknown(why) => unknown("Unreachable", why.clone()),
        Observed::Known(_) => good("Reachable", "the hypervisor answers"),
    }
}

/// The verdict on whether the hypervisor would take the VM as the document has it. A VM that runs here was taken.
fn domain_accepted(world: &World) -> Verdict {
    let Some(desired) = world.document() else {
        return good("NothingAsked", "there is no document to ask for anything");
    };
    let offer = match &world.offer {
        Observed::Unknown(why) => return unknown(NOT_LOOKED, why.clone()),
        Observed::Known(offer) => offer,
    };
    let DomainSpec { name, memory_mib, vcpus, .. } = &desired.domain;
    match offer {
        Offer { namesake: Some(uuid), .. } => bad(
            "NameTaken",
            format!(
                "libvirt here has another domain of the name {name} ({uuid}), beside which none of that name is started: `virsh \
                 undefine {uuid}` once it is off, or `virsh domrename`"
            ),
        ),
        Offer { refuses: Some(why), .. } => bad(
            "MachineRefused",
            format!(
                "libvirt here does not take a machine of the kind that the VM is: {why}. Is its QEMU whole, and as new as the others'?"
            ),
        ),
        Offer { memory_mib: there, .. } if there < memory_mib => bad(
            "TooLittleMemory",
            format!("this host has {} GiB of memory, and the VM needs {}", there >> 10, memory_mib >> 10),
        ),
        Offer { most_vcpus, .. } if most_vcpus < vcpus => bad(
            "TooManyCpus",
            format!(
                "QEMU here gives a guest {most_vcpus} CPUs at most, and the VM is to have {vcpus}: lower `CPU` in the document"
            ),
        ),
        Offer { accelerated: false, .. } => good(
            EMULATED,
            "libvirt here would take the VM, and emulate it, which is slow: KVM cannot be used here. Beside a node with KVM this \
             one is the last to be given the VM",
        ),
        Offer { .. } => good("Accepted", "libvirt here would take the VM"),
    }
}

/// True if a node says that the VM would be emulated there.
pub(super) fn says_emulated(conditions: &[Condition]) -> bool {
    condition::find(conditions, ConditionKind::DomainAccepted).is_some_and(|told| told.reason == EMULATED)
}

fn host(world: &World, of: impl Fn(&crate::desired::Desired, &HostFacts) -> Verdict) -> Verdict {
    match (world.document(), &world.host) {
        (None, _) => good("NothingAsked", "there is no document to ask for anything"),
        (Some(_), Observed::Unknown(why)) => unknown(NOT_LOOKED, why.clone()),
        (Some(desired), Observed::Known(facts)) => of(desired, facts),
    }
}

fn mounts(desired: &crate::desired::Desired, facts: &HostFacts) -> Verdict {
    let verdicts: Vec<_> = desired.wants.mounts.iter().map(|want| mount(want, facts)).collect();
    let is_fault = |verdict: &&Verdict| verdict.0 != ConditionStatus::True;
    let otherwise = |verdict: &&Verdict| verdict.1 == "MountedOtherwise";
    let told = verdicts.iter().find(is_fault).or_else(|| verdicts.iter().find(otherwise));
    told.cloned().unwrap_or_else(|| good("Mounted", "every mount of the document is there and answers"))
}

/// The verdict on one mount.
pub(super) fn mount(want: &MountWant, facts: &HostFacts) -> Verdict {
    let target = want.target.display();
    match facts.mounts.get(&want.target) {
        None => unknown(NOT_LOOKED, format!("{target} has not been looked at yet")),
        Some(Observed::Unknown(why)) => could_not_look(target, why),
        Some(Observed::Known(MountFact::NotAnswering { reason })) => {
            unknown("NotAnswering", format!("{target}: {reason}"))
        }
        Some(Observed::Known(MountFact::NotMounted)) => {
            bad("NotMounted", format!("{} is not mounted on {target}", want.source))
        }
        Some(Observed::Known(MountFact::Other { source, fs_type })) => bad(
            "OtherMounted",
            format!(
                "{source} ({fs_type}) is mounted on {target}, where {} ({}) is wanted: unmount it",
                want.source, want.fs_type
            ),
        ),
        Some(Observed::Known(MountFact::Mounted { options, .. })) => mounted(want, options),
    }
}

/// The verdict on what is mounted where it is wanted, by the options that it has.
fn mounted(want: &MountWant, options: &str) -> Verdict {
    let (source, target) = (&want.source, want.target.display());
    let wants_it = want.options.split(',').any(|option| option == "ro");
    if host::is_read_only(options) && !wants_it {
        return bad(
            "MountedReadOnly",
            format!(
                "{source} is mounted read-only on {target}: mount it with rw, and see that the server exports it so"
            ),
        );
    }
    match host::differing_options(&want.options, options).join(", ").as_str() {
        "" => good("Mounted", format!("{source} is mounted on {target}, and answers")),
        differing => good(
            "MountedOtherwise",
            format!(
                "{source} is mounted on {target}, and answers; it has {differing}: the options of the document are in force once \
                 it is mounted anew"
            ),
        ),
    }
}

fn bridges(desired: &crate::desired::Desired, facts: &HostFacts) -> Verdict {
    for want in &desired.wants.bridges {
        let name = &want.name;
        match facts.bridges.get(name) {
            None => return unknown(NOT_LOOKED, format!("bridge {name} has not been looked at yet")),
            Some(Observed::Unknown(why)) => return could_not_look(format!("bridge {name}"), why),
            Some(Observed::Known(BridgeFact::Missing)) => {
                return bad("BridgeMissing", format!("there is no bridge {name} on this node"));
            }
            Some(Observed::Known(BridgeFact::NotABridge { kind })) => {
                return bad("NotABridge", format!("{name} is a {kind} and not a bridge"));
            }
            Some(Observed::Known(BridgeFact::Bridge { up: false, .. })) => {
                return bad("BridgeDown", format!("bridge {name} is down: `ip link set {name} up`"));
            }
            Some(Observed::Known(BridgeFact::Bridge { carrier: false, .. })) if want.require_carrier => {
                return bad(
                    "NoCarrier",
                    format!(
                        "bridge {name} has no carrier: look at its cable and switch port; one that is to lead \
                         nowhere says `RequireCarrier: false`"
                    ),
                );
            }
            Some(Observed::Known(BridgeFact::Bridge { .. })) => {}
        }
    }
    good("BridgesUp", "every bridge of the document is up")
}

/// The verdict on the disk that a start here would begin from.
fn disk(world: &World, desired: &crate::desired::Desired, facts: &HostFacts) -> Verdict {
    let wants = desired.wants_of(&world.me, world.disk());
    let start_from = devices::image_to_start(world, desired);
    let (status, reason, message) = match (&start_from, &facts.image) {
        (Ok(DomainImage::File { path, format }), Some(Observed::Known(ImageFact::Present(content)))) => {
            usable(&path.display().to_string(), *format, content)
        }
        _ => image(wants.image.as_ref(), facts),
    };
    match (world.disk(), start_from) {
        (Some(_), Err(why)) => bad("DiskNotUnderstood", why),
        (Some(disk), Ok(_)) => {
            let told = match status {
                ConditionStatus::True => {
                    format!("{message}, which the VM last wrote to instead of {}", disk.instead_of)
                }
                // It may be all right: nobody gives up what the guest wrote for that.
                ConditionStatus::Unknown => {
                    format!("{message}. The VM last wrote there, and not to {}", disk.instead_of)
                }
                ConditionStatus::False => format!(
                    "{message}. The VM last wrote there, and not to {}. {}",
                    disk.instead_of,
                    devices::way_out(disk)
                ),
            };
            (status, reason, told)
        }
        (None, _) => (status, reason, message),
    }
}

/// The verdict on an image file by its content: whether QEMU starts the VM from it in this format.
fn usable(path: &str, format: ImageFormat, content: &Content) -> Verdict {
    match (format, content) {
        (_, Content::Empty) => bad("ImageEmpty", format!("{path} is an empty file: put the image there")),
        (ImageFormat::Raw, Content::Other { .. }) => good("ImagePresent", format!("{path} is there")),
        (ImageFormat::Raw, Content::Qcow2(_)) => bad(
            "ImageOfOtherFormat",
            format!(
                "{path} is a qcow2 image, and is to be opened as a raw disk, by which the guest would see its tables: \
                 see `ImageFormat` in the document"
            ),
        ),
        (ImageFormat::Qcow2, Content::Other { looks_like }) => bad(
            "ImageOfOtherFormat",
            format!(
                "{path} is no qcow2 image ({looks_like}): convert it with `qemu-img convert -O qcow2`, or say \
                 `ImageFormat: raw` where it is a raw disk"
            ),
        ),
        (ImageFormat::Qcow2, Content::Qcow2(header)) => readable(path, header),
    }
}

fn readable(path: &str, header: &Qcow2) -> Verdict {
    match header {
        Qcow2 { unknown_version: Some(version), .. } => bad(
            "ImageOfOtherFormat",
            format!("{path} is a qcow2 image of version {version}, and QEMU reads 2 and 3"),
        ),
        Qcow2 { encrypted: true, .. } => bad(
            "ImageEncrypted",
            format!("{path} is encrypted, and zsha has no key for it: convert it with `qemu-img convert`"),
        ),
        Qcow2 { truncated: true, .. } => {
            bad("ImageTruncated", format!("{path} ends before its own tables do: was it copied to its end?"))
        }
        Qcow2 { corrupt: true, .. } => bad(
            "ImageCorrupt",
            format!(
                "QEMU has found {path} to be damaged and opens it for no guest. With the VM off everywhere (`zsha stop`), \
                 `qemu-img check -r all {path}` mends what can be mended; or bring a backup"
            ),
        ),
        Qcow2 { backing: Some(backing), .. } => {
            good("ImagePresent", format!("{path} is there, and rests on {backing}"))
        }
        Qcow2 { .. } => good("ImagePresent", format!("{path} is there")),
    }
}

pub(super) fn image(want: Option<&ImageWant>, facts: &HostFacts) -> Verdict {
    let path = match want {
        None => return good("NothingAsked", "nothing is asked of the image"),
        Some(ImageWant::File(path)) => path.display().to_string(),
        Some(ImageWant::Ceph(monitors)) => format!("Ceph's monitors ({})", monitors.join(", ")),
    };
    match &facts.image {
        None => unknown(NOT_LOOKED, format!("{path} has not been looked at yet")),
        Some(Observed::Unknown(why)) => could_not_look(path, why),
        Some(Observed::Known(ImageFact::NotAnswering { reason })) => {
            unknown("NotAnswering", format!("{path}: {reason}"))
        }
        Some(Observed::Known(ImageFact::Hidden { reason })) => bad(
            "ImageHidden",
            format!(
                "{path}: {reason}. What runs here has it open, and reaches it; see what is mounted over a directory of that path"
            ),
        ),
        Some(Observed::Known(ImageFact::Missing)) => {
            bad("ImageMissing", format!("{path} is not there: is the share mounted, and the image on it?"))
        }
        Some(Observed::Known(ImageFact::NotAFile)) => bad("ImageNotAFile", format!("{path} is not a file")),
        Some(Observed::Known(ImageFact::NotReadable { reason })) => {
            bad("ImageNotReadable", format!("{path} cannot be read: {reason}"))
        }
        Some(Observed::Known(ImageFact::Barred(barred))) => not_for_qemu(&path, barred),
        Some(Observed::Known(ImageFact::Present(_))) => good("ImagePresent", format!("{path} is there")),
        Some(Observed::Known(ImageFact::BackingMissing { path: below, reason })) => {
            bad("BackingMissing", format!("{path} rests on {below}, which cannot be read: {reason}"))
        }
        Some(Observed::Known(ImageFact::NotReached { reason })) => {
            bad("CephNotReached", format!("{path}: none answers: {reason}"))
        }
        Some(Observed::Known(ImageFact::Reached { monitor })) => {
            good("CephReached", format!("Ceph's monitor at {monitor} answers"))
        }
    }
}

/// The verdict on an image that is there and that QEMU may not use.
fn not_for_qemu(path: &str, barred: &Barred) -> Verdict {
    match barred {
        Barred::Folder { user, folder } => bad(
            "ImageFolderClosed",
            format!(
                "QEMU's user ({user}) may not enter {folder}, and so cannot open {path}: `chmod o+x {folder}`"
            ),
        ),
        Barred::ReadOnly => bad(
            "ImageReadOnly",
            format!(
                "{path} is on a file system that is mounted read-only here: mount it with rw, and see that the server \
                 exports it so"
            ),
        ),
        Barred::File { user } => bad(
            "ImageNotWritable",
            format!(
                "QEMU's user ({user}) may not write {path} here, and it is not handed over to that user (root may not write it, or \
                 `dynamic_ownership` is off in libvirt's qemu.conf): `chown {user} {path}`; on a share that makes root nobody \
                 (root_squash) type it on the server"
            ),
        ),
    }
}

fn seed(me: &NodeName, desired: &crate::desired::Desired, facts: &HostFacts) -> Verdict {
    if !desired.seeds.contains_key(me) {
        return good("NothingAsked", "the document has nothing to tell a guest on this node");
    }
    match &facts.seed {
        None => unknown(NOT_LOOKED, "the guest's configuration has not been looked for yet"),
        Some(Observed::Unknown(why)) => could_not_look("the guest's configuration", why),
        Some(Observed::Known(SeedFact::NotWritten)) => {
            unknown("NotWritten", "the guest's configuration for this node is about to be written")
        }
        Some(Observed::Known(SeedFact::Refused { reason })) => bad(
            "NotWritten",
            format!("the guest's configuration cannot be written, and no guest starts without it: {reason}"),
        ),
        Some(Observed::Known(SeedFact::Written)) => {
            good("Written", "the guest's configuration for this node is written")
        }
    }
}

fn schedulable(world: &World) -> Verdict {
    if let Observed::Unknown(why) = &world.intents {
        return unknown("IntentUnknown", format!("it is not known what operators want: {why}"));
    }
    match world.cordon(&world.me) {
        None => good("NotDrained", "no operator keeps the VM from here"),
        Some(cordon @ Cordon::Drained(_)) => {
            bad(DRAINED, format!("{cordon}; `zsha uncordon {}` ends that", world.me))
        }
        Some(cordon @ Cordon::Unreadable(_)) => unknown("IntentUnreadable", cordon.to_string()),
    }
}

fn watchdog(world: &World) -> Verdict {
    let asked = world.document().map(|desired| desired.watchdog);
    let required = asked == Some(Watchdog::Required);
    match world.lease.known().map(|verdict| &verdict.watchdog) {
        _ if asked == Some(Watchdog::Off) => good("Off", "`Fencing.Watchdog` is 'off'"),
        None if required => unknown(
            "KeeperUnreachable",
            "the keeper does not say whether it pets the watchdog that is required",
        ),
        None => good("NotRequired", "no watchdog is required"),
        Some(WatchdogState::Petted { timeout_secs }) => {
            good("Petted", format!("the keeper pets a watchdog that resets this node after {timeout_secs} s"))
        }
        Some(WatchdogState::None) if required => bad(
            "NoWatchdog",
            "`Fencing.Watchdog` is 'required' and the keeper has no watchdog device: name one in its settings \
             (watchdogDevice: /dev/watchdog)",
        ),
        Some(WatchdogState::Off) if required => bad(
            "NoWatchdog",
            "`Fencing.Watchdog` is 'required' and the keeper's watchdog is still turned off",
        ),
        Some(WatchdogState::Refused { reason }) if required => bad(
            "NoWatchdog",
            format!(
                "`Fencing.Watchdog` is 'required' and the keeper's watchdog is not to be relied on: {reason}"
            ),
        ),
        Some(WatchdogState::Refused { reason }) => {
            good("NotRequired", format!("no watchdog is required; the one there is not relied on: {reason}"))
        }
        Some(WatchdogState::None | WatchdogState::Off) => good("NotRequired", "no watchdog is required"),
    }
}
