//! The orders that operators gave by command, until they take them back: the VM stopped, nothing begun, nodes left.
//! They lie beside the document, not in it, so that `apply` never undoes them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::records::{HostShutdown, Intent};

use crate::observed::Observed;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intents {
    pub stop: Option<Stop>,
    /// The last start that was asked for, whether or not it has been taken up.
    pub start: Option<Start>,
    pub freeze: Option<Asked>,
    /// The last reset of the guest's password that was asked for, whether or not it is over.
    pub reset_password: Option<PasswordReset>,
    pub drained: BTreeMap<NodeName, Cordon>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub id: Uuid,
    /// The one who asked, as [`who`] says it.
    pub by: String,
    /// The VM is to start from the image of the document, whatever disk it wrote to last.
    pub from_image: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordReset {
    pub id: Uuid,
    /// The one who asked, as [`who`] says it.
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// One asked for at another time is another.
    pub at: Timestamp,
    /// How long the guest has to power off.
    pub limit: Option<Duration>,
}

/// The one who asked, when and why; the time is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub by: String,
    pub at: Timestamp,
    pub message: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        zsha_crds::status::Asked { by: &self.by, at: self.at, message: &self.message }.fmt(f)
    }
}

/// Names the one who asked, with the reason where one was given: `ann@ops-1 (new memory)`.
pub fn who(by: &str, message: &str) -> String {
    match message {
        "" => by.to_owned(),
        why => format!("{by} ({why})"),
    }
}

/// Why the VM is not to be on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cordon {
    Drained(Asked),
    /// Somebody may have asked for it: it is given nothing new, and keeps what it has.
    Unreadable(String),
}

impl fmt::Display for Cordon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained(asked) => write!(f, "it was drained {asked}"),
            Self::Unreadable(why) => write!(f, "it is not known whether it was drained: {why}"),
        }
    }
}

const SAY_WHETHER_IT_RUNS: &str = "Say `zsha start` if the VM is to run, or `zsha stop` if it is to be off";

/// An order as it lies in the store.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Below `intent/`.
    pub name: &'a str,
    pub intent: &'a Intent,
    /// It has come back with an older state of the store, and nobody has given it since.
    pub came_back: bool,
}

/// Hosts that shut down, as they said in some boot.
pub fn shutdowns<'a>(
    records: impl IntoIterator<Item = (&'a str, &'a Intent)>,
) -> BTreeMap<NodeName, HostShutdown> {
    let said = |(name, intent): (&'a str, &'a Intent)| match intent {
        Intent::Drain { shutdown: Some(shutdown), .. } => Some((Intent::drained(name)?, shutdown.clone())),
        _ => None,
    };
    records.into_iter().filter_map(said).collect()
}

/// Reads the intents: what lies under `intent/`, read or unreadable (by name, and why), and what is gone from there
/// with an older state of the store (by name). `expected`: somebody has applied a document, and so written whether the
/// VM is to run.
pub fn read<'a>(
    records: impl IntoIterator<Item = Stored<'a>>,
    unreadable: &BTreeMap<String, String>,
    undone: &BTreeMap<String, Intent>,
    expected: bool,
) -> Observed<Intents> {
    let mut there = Vec::new();
    let mut unclear: BTreeMap<&str, String> = BTreeMap::new();
    for (name, why) in unreadable {
        unclear.insert(name, format!("cannot be read: {why}"));
    }
    for (name, intent) in undone {
        if let Some(why) = is_undone(name, intent) {
            unclear.entry(name).or_insert(why);
        }
    }
    for Stored { name, intent, came_back } in records {
        if !came_back {
            there.push((name, intent));
        } else if unclear.contains_key(name) {
            // What was asked for last is not what has come back.
        } else if let Some(why) = is_unclear_again(name, intent) {
            unclear.insert(name, why);
        } else {
            there.push((name, once_more(intent)));
        }
    }
    if let Some(why) = unclear.get(Intent::POWER) {
        return Observed::unknown(format!("intent/{} {why}. {SAY_WHETHER_IT_RUNS}", Intent::POWER));
    }
    if let Some(why) = unclear.get(Intent::FREEZE) {
        let say = "Say `zsha resume`, or `zsha freeze` if nothing is to be begun";
        return Observed::unknown(format!("intent/{} {why}. {say}", Intent::FREEZE));
    }
    let mut intents = Intents::default();
    let mut power = false;
    for (name, intent) in there {
        power |= name == Intent::POWER;
        intents.take(name, intent);
    }
    if expected && !power {
        return Observed::unknown(format!("intent/{} is missing. {SAY_WHETHER_IT_RUNS}", Intent::POWER));
    }
    for (name, why) in unclear {
        if let Some(node) = Intent::drained(name) {
            intents.drained.insert(node, Cordon::Unreadable(format!("intent/{name} {why}")));
        }
    }
    Observed::Known(intents)
}

/// The sentence on an order that has come back with an older state of the store, and would take the VM from where it
/// is: it may have been taken back since. What a host says of itself holds for the boot that it names.
fn is_unclear_again(name: &str, intent: &Intent) -> Option<String> {
    let (Intent::Stop { by, at, .. } | Intent::Drain { by, at, .. }) = intent else {
        return None;
    };
    let say = to_be_said_again(name, by)?;
    let asked = zsha_crds::status::Asked { by, at: *at, message: "" };
    Some(format!(
        "has come back with an older state of the store, and may be out of date (asked for {asked}){say}"
    ))
}

/// The sentence on an order that forbids something, which nobody has taken back, and which an older state of the store
/// has not got.
fn is_undone(name: &str, intent: &Intent) -> Option<String> {
    let (Intent::Stop { by, at, .. } | Intent::Freeze { by, at, .. } | Intent::Drain { by, at, .. }) = intent
    else {
        return None;
    };
    let say = to_be_said_again(name, by)?;
    let asked = zsha_crds::status::Asked { by, at: *at, message: "" };
    Some(format!(
        "was asked for {asked}, and is gone with the store, which was put back to an older state: nobody has taken it \
         back{say}"
    ))
}

/// The command that settles a drain which is in doubt; for orders to the whole cluster it is told elsewhere. None: a
/// host has asked for the drain itself.
fn to_be_said_again(name: &str, by: &str) -> Option<&'static str> {
    match Intent::drained(name) {
        Some(node) if Intent::is_host_itself(&node, by) => None,
        Some(_) => {
            Some(". Say `zsha drain` again if the VM is to leave that node, or `zsha uncordon` if not")
        }
        None => Some(""),
    }
}

/// Leaves out an order that is done once: it was done, or not, before the store went back.
fn once_more(intent: &Intent) -> &Intent {
    match intent {
        Intent::Start { .. } | Intent::Migrate { .. } | Intent::ResetPassword { .. } => &Intent::None,
        Intent::Stop { .. } | Intent::Freeze { .. } | Intent::Drain { .. } | Intent::None => intent,
    }
}

impl Intents {
    fn take(&mut self, name: &str, intent: &Intent) {
        match intent {
            Intent::Stop { timeout_seconds, at, .. } => {
                self.stop = Some(Stop { at: *at, limit: timeout_seconds.map(Duration::from_secs) });
            }
            Intent::Freeze { by, at, message } => {
                self.freeze = Some(Asked { by: by.clone(), at: *at, message: message.clone() });
            }
            Intent::Drain { by, at, message, .. } => {
                if let Some(node) = Intent::drained(name) {
                    let asked = Asked { by: by.clone(), at: *at, message: message.clone() };
                    self.drained.insert(node, Cordon::Drained(asked));
                }
            }
            Intent::Start { id, by, message, from_image, .. } => {
                self.start = Some(Start { id: *id, by: who(by, message), from_image: *from_image });
            }
            Intent::ResetPassword { id, by, message, .. } => {
                self.reset_password = Some(PasswordReset { id: *id, by: who(by, message) });
            }
            Intent::Migrate { .. } | Intent::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use zsha_crds::VmName;

    use super::*;

    fn order(intent: impl FnOnce(String, Timestamp, String) -> Intent) -> Intent {
        intent("root@nfs-1".to_owned(), Timestamp::UNIX_EPOCH, "new memory".to_owned())
    }

    fn stop(timeout_seconds: Option<u64>) -> Intent {
        let vm = VmName::management();
        order(|by, at, message| Intent::Stop { vm, by, at, message, timeout_seconds })
    }

    fn drain() -> Intent {
        order(|by, at, message| Intent::Drain { by, at, message, shutdown: None })
    }

    fn freeze() -> Intent {
        order(|by, at, message| Intent::Freeze { by, at, message })
    }

    /// All as they were given.
    fn read<'a>(
        records: impl IntoIterator<Item = (&'a str, &'a Intent)>,
        unreadable: &BTreeMap<String, String>,
        expected: bool,
    ) -> Observed<Intents> {
        let given = |(name, intent)| Stored { name, intent, came_back: false };
        super::read(records.into_iter().map(given), unreadable, &BTreeMap::new(), expected)
    }

    fn bad(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), "no JSON".to_owned())])
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn each_is_read_where_it_belongs() {
        let stop = stop(Some(30));
        let (drain, freeze) = (drain(), freeze());
        let records =
            [("power", &stop), ("freeze", &freeze), ("drain.nfs-2", &drain), ("drain.nfs-3", &Intent::None)];
        let intents = read(records, &BTreeMap::new(), true).known().cloned().unwrap();
        assert_eq!(
            intents.stop,
            Some(Stop { at: Timestamp::UNIX_EPOCH, limit: Some(Duration::from_secs(30)) })
        );
        assert_eq!(
            intents.freeze.map(|asked| asked.to_string()).as_deref(),
            Some("by root@nfs-1 at 1970-01-01 00:00:00Z: new memory")
        );
        assert_eq!(intents.drained.keys().collect::<Vec<_>>(), [&node("nfs-2")]);
    }

    /// A stopped VM must not be started because somebody has copied another order over its key.
    #[test]
    fn an_order_under_the_name_of_another_hides_what_stood_there() {
        let stop = stop(None);
        let (drain, freeze, none) = (drain(), freeze(), Intent::None);
        let unreadable = |name: &str, intent: &Intent| {
            let text = serde_json::to_string(intent).unwrap();
            (name.to_owned(), Intent::read(name, &text, &VmName::management()).unwrap_err())
        };
        // What was read there last is still known beside it.
        let records = [("power", &none), ("freeze", &none)];
        for (name, intent) in [("power", &freeze), ("power", &drain), ("freeze", &stop), ("freeze", &drain)] {
            let misplaced = [unreadable(name, intent)].into();
            assert!(read(records, &misplaced, true).known().is_none(), "{misplaced:?}");
        }
        let misplaced = [("drain.nfs-2", &stop), ("other", &drain), ("migrate", &stop)];
        let misplaced = misplaced.map(|(name, intent)| unreadable(name, intent)).into();
        let intents = read(records, &misplaced, true).known().cloned().unwrap();
        assert_eq!(intents.drained.keys().collect::<Vec<_>>(), [&node("nfs-2")]);
        assert!(matches!(intents.drained[&node("nfs-2")], Cordon::Unreadable(_)));
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let none = [("power", &Intent::None)];
        for name in ["power", "freeze"] {
            assert!(read(none, &bad(name), true).known().is_none(), "{name}");
        }
        let intents = read(none, &bad("drain.nfs-2"), true).known().cloned().unwrap();
        assert_eq!(
            intents.drained[&node("nfs-2")],
            Cordon::Unreadable("intent/drain.nfs-2 cannot be read: no JSON".to_owned())
        );
        assert_eq!(read(none, &bad("migrate"), true), Observed::Known(Intents::default()));
    }

    #[test]
    fn what_was_forbidden_and_is_gone_with_an_older_state_of_the_store_is_not_taken_to_be_allowed() {
        let stop = stop(None);
        let none = Intent::None;
        let stands = [("power", &none), ("freeze", &none), ("drain.nfs-2", &none)];
        let undone = |name: &str, intent: &Intent| {
            let undone = BTreeMap::from([(name.to_owned(), intent.clone())]);
            let given = |(name, intent)| Stored { name, intent, came_back: true };
            super::read(stands.into_iter().map(given), &BTreeMap::new(), &undone, true)
        };
        for (name, intent, say) in [("power", &stop, "`zsha start`"), ("freeze", &freeze(), "`zsha resume`")]
        {
            let Observed::Unknown(why) = undone(name, intent) else { panic!("{name} is taken for nothing") };
            assert!(why.contains("nobody has taken it back") && why.contains(say), "{why}");
        }
        let cordons = |drain: &Intent| undone("drain.nfs-2", drain).known().cloned().unwrap().drained;
        assert!(
            matches!(&cordons(&drain())[&node("nfs-2")], Cordon::Unreadable(why) if why.contains("uncordon"))
        );
        let by = Intent::host_itself(&node("nfs-2"), "boot");
        let own = Intent::Drain { by, at: Timestamp::UNIX_EPOCH, message: String::new(), shutdown: None };
        assert!(cordons(&own).is_empty(), "a host that has said so itself says so again");
    }

    #[test]
    fn an_order_that_came_back_with_an_older_state_of_the_store_moves_and_ends_nothing() {
        let at = Timestamp::UNIX_EPOCH;
        let id = Uuid::from_u128(1);
        let (by, message) = ("anna".to_owned(), String::new());
        let back = |name, intent: &Intent| {
            super::read([Stored { name, intent, came_back: true }], &BTreeMap::new(), &BTreeMap::new(), false)
        };
        let stop = stop(None);
        let Observed::Unknown(why) = back("power", &stop) else { panic!("it may have been taken back") };
        assert!(why.contains("come back") && why.contains("Say `zsha start` if"), "{why}");
        let start = Intent::Start {
            vm: VmName::management(),
            id,
            by: by.clone(),
            at,
            message: message.clone(),
            from_image: false,
        };
        assert_eq!(back("power", &start), Observed::Known(Intents::default()), "it was taken up long ago");
        let reset = Intent::ResetPassword { vm: VmName::management(), id, by, at, message };
        assert_eq!(back("reset-password", &reset), Observed::Known(Intents::default()));
        let cordons = |intent: &Intent| back("drain.nfs-2", intent).known().cloned().unwrap().drained;
        assert!(matches!(cordons(&drain())[&node("nfs-2")], Cordon::Unreadable(_)));
        let by = Intent::host_itself(&node("nfs-2"), "boot");
        let own = Intent::Drain { by, at, message: String::new(), shutdown: None };
        assert!(matches!(cordons(&own)[&node("nfs-2")], Cordon::Drained(_)));
        assert!(back("freeze", &freeze()).known().unwrap().freeze.is_some(), "that begins nothing");
    }

    #[test]
    fn the_reason_that_came_with_an_order_is_told_with_the_one_who_gave_it() {
        let (at, id) = (Timestamp::UNIX_EPOCH, Uuid::from_u128(1));
        let vm = VmName::management;
        let by = |message: &str| {
            let (by, message) = ("anna@ops-1".to_owned(), message.to_owned());
            let start = Intent::Start {
                vm: vm(),
                id,
                by: by.clone(),
                at,
                message: message.clone(),
                from_image: false,
            };
            let reset = Intent::ResetPassword { vm: vm(), id, by, at, message };
            let read = read([("power", &start), ("reset-password", &reset)], &BTreeMap::new(), true);
            let read = read.known().cloned().unwrap();
            (read.start.unwrap().by, read.reset_password.unwrap().by)
        };
        let told = "anna@ops-1 (the disk is mended)".to_owned();
        assert_eq!(by("the disk is mended"), (told.clone(), told));
        assert_eq!(by(""), ("anna@ops-1".to_owned(), "anna@ops-1".to_owned()));
    }

    #[test]
    fn whether_the_vm_is_to_run_is_not_known_once_a_document_was_applied_and_nothing_says_it() {
        assert!(read([], &BTreeMap::new(), true).known().is_none());
        assert_eq!(read([], &BTreeMap::new(), false), Observed::Known(Intents::default()));
    }
}
