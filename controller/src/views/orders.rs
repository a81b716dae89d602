//! Which orders stand in the store because somebody has given them, and which have come back with an older state of it.
//!
//! A snapshot that is restored brings back a stop that was taken back, a migration that is over, a reset of the password.
//! A process that has watched knows what stood there before. One that was started since knows from its keeper when the
//! store went back: an order that was given before that may have been taken back since.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use zsha_crds::records::Intent;
use zsha_runtime::Moment;
use zsha_runtime::watcher::Event;

#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By key: as it was last written while it was watched, or stood there at the first look.
    given: BTreeMap<String, Intent>,
    /// Keys of which the latter is so.
    found: BTreeSet<String>,
    /// When the first look was begun.
    first: Option<Moment>,
    /// The list is one more, since the store went back.
    again: bool,
}

impl Orders {
    pub(super) fn see(&mut self, now: Moment, event: &Event) {
        match event {
            Event::Init => self.again = self.first.replace(self.first.unwrap_or(now)).is_some(),
            Event::InitApply(entry) if self.again => {}
            Event::InitApply(entry) => {
                self.found.insert(entry.key.clone());
                self.take(&entry.key, &entry.value);
            }
            Event::Apply(entry) => {
                self.found.remove(&entry.key);
                self.take(&entry.key, &entry.value);
            }
            Event::Delete(key) => {
                self.found.remove(key);
                self.given.remove(key);
            }
            Event::InitDone | Event::Bookmark => {}
        }
    }

    fn take(&mut self, key: &str, value: &str) {
        match serde_json::from_str(value) {
            Ok(intent) => self.given.insert(key.to_owned(), intent),
            // It is told as one that cannot be read.
            Err(_) => self.given.remove(key),
        };
    }

    /// Before which moment an order that was found at the first look was given, for it to have come back. `went_back`: when
    /// the store did, as the keeper knows; `wall`: what the clock on the wall says at `now`.
    pub(super) fn doubtful_before(
        &self,
        went_back: Option<Moment>,
        (now, wall): (Moment, Timestamp),
    ) -> Option<Timestamp> {
        let first = self.first?;
        let at = went_back.filter(|at| *at <= first)?;
        wall.checked_sub(now.since(at)).ok()
    }

    pub(super) fn has_come_back(
        &self,
        key: &str,
        intent: &Intent,
        doubtful_before: Option<Timestamp>,
    ) -> bool {
        if self.given.get(key) != Some(intent) {
            return true;
        }
        let given_before = |before| intent.at().is_some_and(|at| at < before);
        self.found.contains(key) && doubtful_before.is_some_and(given_before)
    }
}

#[cfg(test)]
mod tests {
    use zsha_runtime::store::Entry;

    use super::*;

    fn stop(second: i64) -> Intent {
        Intent::Stop {
            by: "anna".to_owned(),
            at: Timestamp::from_second(second).unwrap(),
            message: String::new(),
            timeout_seconds: None,
        }
    }

    fn entry(intent: &Intent) -> Entry {
        let value = serde_json::to_string(intent).unwrap();
        Entry { key: "power".to_owned(), value, modify_index: 1 }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn watched(events: &[Event]) -> Orders {
        let mut orders = Orders::default();
        for (event, millis) in events.iter().zip((1..).map(|n: u64| n * 1_000)) {
            orders.see(at(millis), event);
        }
        orders
    }

    #[test]
    fn what_another_time_shows_has_come_back_until_somebody_gives_it_again() {
        let (old, new) = (stop(1), stop(2));
        let list = |intent: &Intent| [Event::Init, Event::InitApply(entry(intent)), Event::InitDone];
        let mut events = [list(&old), list(&old)].concat();
        assert!(!watched(&events).has_come_back("power", &old, None), "it stood there all the time");
        events.extend([Event::Apply(entry(&Intent::None))]);
        events.extend(list(&old));
        assert!(watched(&events).has_come_back("power", &old, None));
        events.push(Event::Apply(entry(&new)));
        assert!(!watched(&events).has_come_back("power", &new, None));
        events.extend([Event::Delete("power".to_owned())]);
        events.extend(list(&new));
        assert!(watched(&events).has_come_back("power", &new, None), "it was taken back");
    }

    #[test]
    fn a_process_that_was_started_since_doubts_what_was_given_before_the_store_went_back() {
        let orders = watched(&[Event::Init, Event::InitApply(entry(&stop(50))), Event::InitDone]);
        let wall = Timestamp::from_second(100).unwrap();
        let before = |went_back| orders.doubtful_before(went_back, (at(11_000), wall));
        assert_eq!(before(Some(at(1_000))), Some(Timestamp::from_second(90).unwrap()));
        assert_eq!(before(Some(at(1_001))), None, "it has watched since before that");
        assert_eq!(before(None), None);
        let came_back =
            |second| orders.has_come_back("power", &stop(50), Timestamp::from_second(second).ok());
        assert!(came_back(51));
        assert!(!came_back(50));
        assert!(!orders.has_come_back("power", &stop(50), None));
    }
}
