//! Which orders stand in the store because somebody has given them, which have come back with an older state of it, and
//! which are gone with a newer one.
//!
//! A snapshot that is restored brings back a stop that was taken back, a migration that is over, a reset of the password;
//! and one of before a stop has none, though nobody has taken it back.
//! A process that has watched knows what stood there before. One that was started since is told by its keeper how far the
//! store had come when that had written the first renewal since: what is older may have been taken back.

use std::collections::BTreeMap;

use zsha_crds::records::Intent;
use zsha_runtime::Moment;
use zsha_runtime::lease::StepBack;
use zsha_runtime::store::Entry;
use zsha_runtime::watcher::Event;

use crate::planted::{self, Bug};

#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By key: as it was last written while it was watched, or stood there at the first look.
    given: BTreeMap<String, Intent>,
    /// Those of which the latter is so, with their index.
    found: BTreeMap<String, u64>,
    /// The highest index of one that was given.
    highest: u64,
    /// When the first look was begun.
    first: Option<Moment>,
    /// The list is one more, since the store went back.
    again: bool,
    /// What that list has, so far; none where it cannot be read.
    listed: BTreeMap<String, Option<Intent>>,
    /// What was given and forbids something, and is not in it.
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
                // One that was given while nobody could be asked, and no older state shows.
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
            Event::Delete(key) => {
                self.found.remove(key);
                self.given.remove(key);
                self.undone.remove(key);
            }
            Event::InitDone if self.again => {
                for (key, intent) in self.given.iter().filter(|(_, intent)| forbids(intent)) {
                    match self.listed.get(key) {
                        // One of the same kind forbids the same.
                        Some(Some(listed)) if is_alike(listed, intent) => drop(self.undone.remove(key)),
                        // It is told as one that cannot be read.
                        Some(None) => {}
                        Some(Some(_)) | None => drop(self.undone.insert(key.clone(), intent.clone())),
                    }
                }
            }
            Event::InitDone | Event::Bookmark => {}
        }
    }

    fn take(&mut self, entry: &Entry) {
        self.undone.remove(&entry.key);
        self.highest = self.highest.max(entry.modify_index);
        match serde_json::from_str(&entry.value) {
            Ok(intent) => self.given.insert(entry.key.clone(), intent),
            // It is told as one that cannot be read.
            Err(_) => self.given.remove(&entry.key),
        };
    }

    /// What somebody has forbidden, and nobody has allowed again, and the store has no more since it went back; by key. Known
    /// only to a process that has watched.
    pub(super) const fn undone(&self) -> &BTreeMap<String, Intent> {
        &self.undone
    }

    /// `step_back`: what the keeper says of the last one. Whoever began to watch before the last moment at which it can have
    /// been has seen what stood there.
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

/// Whether something is not to be done while it stands.
const fn forbids(intent: &Intent) -> bool {
    matches!(intent, Intent::Stop { .. } | Intent::Freeze { .. } | Intent::Drain { .. })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn stop(second: i64) -> Intent {
        Intent::Stop {
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
        events.extend(list(&old, 9));
        assert!(!watched(&events).has_come_back("power", &old, None), "it was given meanwhile");
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
            (vec![Event::Delete("power".to_owned())], None),
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
