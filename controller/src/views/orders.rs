//! Tells apart the orders in the store that somebody has given, those that have come back with an older state of it,
//! and those that the older state has not got though nobody has taken them back.
//!
//! A snapshot that is restored brings back a stop that was taken back, a migration that is over, a reset of the
//! password. A snapshot from before a stop was asked for loses that stop, though nobody has taken it back.
//!
//! A process that has watched knows what stood there before. One that was started since is told by its keeper how far
//! the store had come at the keeper's first renewal after the restore: an older order may have been taken back.

use std::collections::{BTreeMap, VecDeque};

use zsha_crds::records::Intent;
use zsha_runtime::Moment;
use zsha_runtime::lease::StepBack;
use zsha_runtime::store::Entry;
use zsha_runtime::watcher::Event;

use crate::planted::{self, Bug};

/// The number of orders that are over and are remembered for each key.
const REPLACED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The order of each key, as it was last written while it was watched, or stood there at the first look.
    given: BTreeMap<String, Intent>,
    /// The orders that stood at each key before that, the oldest first. Each of them is over.
    replaced: BTreeMap<String, VecDeque<Intent>>,
    /// The orders that stood there at the first look, with their index.
    found: BTreeMap<String, u64>,
    /// The highest index of an order that was given.
    highest: u64,
    /// The moment when the first look was begun.
    first: Option<Moment>,
    /// True while a further list is read, since the store went back.
    again: bool,
    /// The orders that the list has so far; none where one cannot be read.
    listed: BTreeMap<String, Option<Intent>>,
    /// The orders that were given and forbid something, and are not in the list.
    undone: BTreeMap<String, Intent>,
}

impl Orders {
    pub(super) fn see(&mut self, now: Moment, event: &Event) {
        match event {
            Event::Init => {
                self.again = self.first.replace(self.first.unwrap_or(now)).is_some();
                self.listed.clear();
            }
            Event::InitApply(entry) if self.again => {
                self.listed.insert(entry.key.clone(), serde_json::from_str(&entry.value).ok());
                // The order was given while nobody could be asked, and no older state shows it.
                if entry.modify_index > self.highest {
                    self.found.remove(&entry.key);
                    self.take(entry);
                }
            }
            Event::InitApply(entry) => {
                self.found.insert(entry.key.clone(), entry.modify_index);
                self.take(entry);
            }
            Event::Apply(entry) => {
                self.found.remove(&entry.key);
                self.take(entry);
            }
            // No command deletes an order: it was done by hand, or a restore looks so to a process that was cut off.
            Event::Delete(key) => {
                self.found.remove(key);
                self.see_gone(key, None);
                self.given.remove(key);
            }
            Event::InitDone if self.again => {
                let listed = std::mem::take(&mut self.listed);
                for key in self.given.keys().cloned().collect::<Vec<_>>() {
                    match listed.get(&key) {
                        // An unreadable order is told as such.
                        Some(None) => {}
                        stands => self.see_gone(&key, stands.and_then(Option::as_ref)),
                    }
                }
            }
            Event::InitDone | Event::Bookmark => {}
        }
    }

    fn take(&mut self, entry: &Entry) {
        self.highest = self.highest.max(entry.modify_index);
        let intent: Option<Intent> = serde_json::from_str(&entry.value).ok();
        // The drain that a host asks for, and takes back, allows nothing that somebody had forbidden.
        let of_host = |intent: &Intent| is_of_host(&entry.key, intent);
        let is_nothing = intent.as_ref() == Some(&Intent::None);
        let is_of_host = intent.as_ref().is_some_and(of_host)
            || is_nothing && self.given.get(&entry.key).is_some_and(of_host);
        if !is_of_host {
            self.undone.remove(&entry.key);
        }
        if let Some(intent) = &intent
            && self.replaced.get(&entry.key).is_some_and(|replaced| replaced.contains(intent))
        {
            self.see_gone(&entry.key, Some(intent));
            return;
        }
        let before = match intent {
            Some(intent) => self.given.insert(entry.key.clone(), intent),
            // An unreadable order is told as such.
            None => self.given.remove(&entry.key),
        };
        // `None` is no order of its own: it is written again and again.
        if let Some(before) =
            before.filter(|before| *before != Intent::None && self.given.get(&entry.key) != Some(before))
        {
            let replaced = self.replaced.entry(entry.key.clone()).or_default();
            replaced.push_back(before);
            if replaced.len() > REPLACED {
                replaced.pop_front();
            }
        }
    }

    /// The store has under this key another order than the one that was given last, or none.
    fn see_gone(&mut self, key: &str, stands: Option<&Intent>) {
        let Some(given) = self.given.get(key).filter(|given| forbids(key, given)) else { return };
        // An order of the same kind forbids the same.
        if stands.is_some_and(|stands| is_alike(stands, given) && forbids(key, stands)) {
            self.undone.remove(key);
        } else {
            self.undone.insert(key.to_owned(), given.clone());
        }
    }

    /// The orders by which somebody has forbidden something, which nobody has taken back, and which the store has not
    /// got any more since it went back; by key. Only a process that has watched knows them.
    pub(super) const fn undone(&self) -> &BTreeMap<String, Intent> {
        &self.undone
    }

    /// `step_back`: the last step back of the store, as the keeper says. A process that began to watch before the last
    /// moment at which it can have been has seen what stood there.
    pub(super) fn has_come_back(&self, key: &str, intent: &Intent, step_back: Option<StepBack>) -> bool {
        if planted::is_planted(Bug::CameBackIsObeyed) {
            return false;
        }
        if self.given.get(key) != Some(intent) {
            return true;
        }
        let (Some(index), Some(step)) = (self.found.get(key), step_back) else { return false };
        let watched = self.first.is_some_and(|first| first < step.after);
        !watched && step.index.is_none_or(|written| *index < written)
    }
}

fn is_alike(one: &Intent, other: &Intent) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// True if something is not to be done by this order before somebody says so.
fn forbids(key: &str, intent: &Intent) -> bool {
    matches!(intent, Intent::Stop { .. } | Intent::Freeze { .. } | Intent::Drain { .. })
        && !is_of_host(key, intent)
}

/// A drain that a host has asked for as it shut down: it holds for one boot, and the host itself takes it back.
fn is_of_host(key: &str, intent: &Intent) -> bool {
    let Intent::Drain { by, .. } = intent else { return false };
    let node = key.rsplit('/').next().and_then(Intent::drained);
    node.is_some_and(|node| Intent::is_host_itself(&node, by))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn stop(second: i64) -> Intent {
        Intent::Stop {
            vm: zsha_crds::VmName::management(),
            by: "anna".to_owned(),
            at: Timestamp::from_second(second).unwrap(),
            message: String::new(),
            timeout_seconds: None,
        }
    }

    fn entry(intent: &Intent, modify_index: u64) -> Entry {
        let value = serde_json::to_string(intent).unwrap();
        Entry { key: "power".to_owned(), value, modify_index }
    }

    fn list(intent: &Intent, index: u64) -> [Event; 3] {
        [Event::Init, Event::InitApply(entry(intent, index)), Event::InitDone]
    }

    /// Each a second after the one before, from the first second on.
    fn watched(events: &[Event]) -> Orders {
        let mut orders = Orders::default();
        for (event, second) in events.iter().zip(1u64..) {
            orders.see(Moment::from_millis(second * 1_000), event);
        }
        orders
    }

    #[test]
    fn what_another_time_shows_has_come_back_until_somebody_gives_it_again() {
        let (old, new) = (stop(1), stop(2));
        let mut events = [list(&old, 5), list(&old, 5)].concat();
        assert!(!watched(&events).has_come_back("power", &old, None), "it stood there all the time");
        events.push(Event::Apply(entry(&Intent::None, 8)));
        events.extend(list(&old, 5));
        assert!(watched(&events).has_come_back("power", &old, None));
        events.push(Event::Apply(entry(&new, 7)));
        assert!(!watched(&events).has_come_back("power", &new, None));
        events.push(Event::Delete("power".to_owned()));
        events.extend(list(&new, 7));
        assert!(watched(&events).has_come_back("power", &new, None), "it was taken back");
        events.extend(list(&stop(3), 9));
        assert!(!watched(&events).has_come_back("power", &stop(3), None), "it was given meanwhile");
    }

    #[test]
    fn what_a_host_says_of_itself_allows_nothing_that_somebody_has_forbidden() {
        let key = "zsha/c/intent/drain.nfs-2".to_owned();
        let node = zsha_crds::NodeName::new("nfs-2").unwrap();
        let drain = |by: &str| Intent::Drain {
            by: by.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            message: String::new(),
            shutdown: None,
        };
        let entry = |intent: &Intent, index| Entry { key: key.clone(), ..entry(intent, index) };
        let (annas, own) = (drain("anna"), drain(&Intent::host_itself(&node, "boot")));
        let given = vec![Event::Init, Event::InitDone, Event::Apply(entry(&annas, 8))];
        let gone = vec![Event::Init, Event::InitDone];
        let with_own = vec![Event::Init, Event::InitApply(entry(&own, 5)), Event::InitDone];
        let by_itself = vec![Event::Apply(entry(&own, 6)), Event::Apply(entry(&Intent::None, 7))];
        let said = vec![Event::Apply(entry(&Intent::None, 9))];
        let undone = |events: &[&[Event]]| watched(&events.concat()).undone().get(&key).cloned();
        for restored in [&gone, &with_own] {
            assert_eq!(undone(&[&given, restored]), Some(annas.clone()));
            assert_eq!(undone(&[&given, restored, &by_itself]), Some(annas.clone()));
            assert_eq!(undone(&[&given, restored, &by_itself, &said]), None, "`zsha uncordon`");
        }
        assert_eq!(
            undone(&[&given, &[Event::Delete(key.clone())]]),
            Some(annas.clone()),
            "or deleted by hand"
        );
        let given = vec![Event::Init, Event::InitDone, Event::Apply(entry(&own, 8))];
        assert_eq!(undone(&[&given, &gone]), None, "it says so again where it is so");
    }

    /// `consul kv import` of an old export: every key is written anew, with a new index.
    #[test]
    fn an_order_that_was_replaced_is_not_given_again_by_a_write_of_the_very_same() {
        let (old, new) = (stop(1), Intent::None);
        let before = [list(&old, 5).as_slice(), &[Event::Apply(entry(&new, 8))]].concat();
        let imported = [before.as_slice(), &[Event::Apply(entry(&old, 20))]].concat();
        assert!(watched(&imported).has_come_back("power", &old, None));
        let listed = [before.as_slice(), &list(&old, 20)].concat();
        assert!(watched(&listed).has_come_back("power", &old, None), "seen in a list");
        let again = [imported.as_slice(), &[Event::Apply(entry(&stop(2), 21))]].concat();
        assert!(!watched(&again).has_come_back("power", &stop(2), None), "somebody says so again");
        // What was in force when the old one came forbids more than that does.
        let said = |intent: &Intent, index| vec![Event::Apply(entry(intent, index))];
        let first = list(&freeze(1), 5).to_vec();
        let events = [first, said(&new, 8), said(&stop(3), 9), said(&freeze(1), 10)].concat();
        assert_eq!(watched(&events).undone().get("power"), Some(&stop(3)));
        let none = [list(&stop(1), 5).to_vec(), said(&new, 8), said(&stop(2), 9), said(&new, 10)].concat();
        assert!(!watched(&none).has_come_back("power", &new, None), "nothing is said again and again");
        assert!(watched(&none).undone().is_empty());
    }

    fn freeze(second: i64) -> Intent {
        let (by, message) = ("anna".to_owned(), String::new());
        Intent::Freeze { by, at: Timestamp::from_second(second).unwrap(), message }
    }

    #[test]
    fn what_forbids_something_and_is_gone_with_a_restore_is_undone_until_somebody_says_so_again() {
        let (old, new) = (Intent::None, stop(2));
        let undone = |events: &[Event]| watched(events).undone().get("power").cloned();
        let before = [list(&old, 5).as_slice(), &[Event::Apply(entry(&new, 8))]].concat();
        assert_eq!(undone(&before), None);
        let restored = [before.as_slice(), &list(&old, 5)].concat();
        assert_eq!(undone(&restored), Some(new.clone()));
        assert_eq!(undone(&[before.as_slice(), &[Event::Init, Event::InitDone]].concat()), Some(new.clone()));
        for (said, left) in [
            (vec![Event::Apply(entry(&old, 6))], None),
            (vec![Event::Apply(entry(&stop(3), 6))], None),
            (vec![Event::Delete("power".to_owned())], Some(new.clone())),
            (list(&old, 9).to_vec(), None),
            (list(&new, 8).to_vec(), None),
            (list(&old, 5).to_vec(), Some(new.clone())),
        ] {
            assert_eq!(undone(&[restored.as_slice(), &said].concat()), left, "{said:?}");
        }
        // What forbids nothing may go.
        let events = [list(&new, 5).as_slice(), &[Event::Apply(entry(&old, 8))], &list(&new, 5)].concat();
        assert_eq!(undone(&events), None);
    }

    #[test]
    fn a_process_that_was_started_since_doubts_what_was_written_before_the_store_went_back() {
        let orders = watched(&list(&stop(1), 50));
        let came_back = |after: u64, index| {
            let step = StepBack { after: Moment::from_millis(after), index };
            orders.has_come_back("power", &stop(1), Some(step))
        };
        assert!(came_back(1_000, Some(51)), "whether it began to watch before that is not known");
        assert!(came_back(1_000, None));
        assert!(!came_back(1_000, Some(50)), "it was given since");
        assert!(!came_back(1_001, Some(51)), "it has watched since before that");
        assert!(!orders.has_come_back("power", &stop(1), None));
    }
}
