//! What operators asked for by command and is so until they take it back: the VM stopped, nothing begun, nodes left.
//! It is beside the document, not in it, so that `apply` never undoes it.

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
    /// Hosts that shut down, as they said in some boot.
    pub shutdowns: BTreeMap<NodeName, HostShutdown>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub id: Uuid,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordReset {
    pub id: Uuid,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// One asked for at another time is another.
    pub at: Timestamp,
    /// How long the guest has to power off.
    pub limit: Option<Duration>,
}

/// By whom, when and why; the time is for people.
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

/// From what lies under `intent/`, by name, read and unreadable (and why). `expected`: somebody has applied a document,
/// and so written whether the VM is to run.
pub fn read<'a>(
    records: impl IntoIterator<Item = (&'a str, &'a Intent)>,
    unreadable: &BTreeMap<String, String>,
    expected: bool,
) -> Observed<Intents> {
    let (there, misplaced): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|(name, intent)| intent.belongs_under(name));
    // Whatever had been asked for there was written over: nobody knows it.
    let misplaced = misplaced.into_iter().map(|(name, _)| (name, "an order of another kind stands there"));
    let unreadable: BTreeMap<&str, &str> =
        unreadable.iter().map(|(name, why)| (name.as_str(), why.as_str())).chain(misplaced).collect();
    for name in [Intent::POWER, Intent::FREEZE] {
        if let Some(why) = unreadable.get(name) {
            return Observed::unknown(format!("intent/{name} cannot be read: {why}"));
        }
    }
    let mut intents = Intents::default();
    let mut power = false;
    for (name, intent) in there {
        power |= name == Intent::POWER;
        intents.take(name, intent);
    }
    if expected && !power {
        return Observed::unknown(format!("intent/{} is missing", Intent::POWER));
    }
    for (name, why) in unreadable {
        if let Some(node) = Intent::drained(name) {
            intents.drained.insert(node, Cordon::Unreadable(why.to_owned()));
        }
    }
    Observed::Known(intents)
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
            Intent::Drain { by, at, message, shutdown } => {
                if let Some(node) = Intent::drained(name) {
                    let asked = Asked { by: by.clone(), at: *at, message: message.clone() };
                    if let Some(shutdown) = shutdown {
                        self.shutdowns.insert(node.clone(), shutdown.clone());
                    }
                    self.drained.insert(node, Cordon::Drained(asked));
                }
            }
            Intent::Start { id, by, .. } => {
                self.start = Some(Start { id: *id, by: by.clone() });
            }
            Intent::ResetPassword { id, by, .. } => {
                self.reset_password = Some(PasswordReset { id: *id, by: by.clone() });
            }
            Intent::Migrate { .. } | Intent::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(intent: fn(String, Timestamp, String) -> Intent) -> Intent {
        intent("root@nfs-1".to_owned(), Timestamp::UNIX_EPOCH, "new memory".to_owned())
    }

    fn drain() -> Intent {
        order(|by, at, message| Intent::Drain { by, at, message, shutdown: None })
    }

    fn freeze() -> Intent {
        order(|by, at, message| Intent::Freeze { by, at, message })
    }

    fn bad(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), "no JSON".to_owned())])
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn each_is_read_where_it_belongs() {
        let stop = order(|by, at, message| Intent::Stop { by, at, message, timeout_seconds: Some(30) });
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
        let stop = order(|by, at, message| Intent::Stop { by, at, message, timeout_seconds: None });
        let (drain, freeze, none) = (drain(), freeze(), Intent::None);
        for misplaced in [("power", &freeze), ("power", &drain), ("freeze", &stop), ("freeze", &drain)] {
            let records = [("power", &none), ("freeze", &none), misplaced];
            assert!(read(records, &BTreeMap::new(), true).known().is_none(), "{misplaced:?}");
        }
        let records = [("power", &none), ("drain.nfs-2", &stop), ("other", &drain), ("migrate", &stop)];
        let intents = read(records, &BTreeMap::new(), true).known().cloned().unwrap();
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
        assert_eq!(intents.drained[&node("nfs-2")], Cordon::Unreadable("no JSON".to_owned()));
        assert_eq!(read(none, &bad("migrate"), true), Observed::Known(Intents::default()));
    }

    #[test]
    fn whether_the_vm_is_to_run_is_not_known_once_a_document_was_applied_and_nothing_says_it() {
        assert!(read([], &BTreeMap::new(), true).known().is_none());
        assert_eq!(read([], &BTreeMap::new(), false), Observed::Known(Intents::default()));
    }
}
