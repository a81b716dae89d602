//! Chooses which events of a watcher are worth a wake-up. A filter remembers one small number for each key, and shows
//! everything it is not sure of: what has no such number, deletions, errors, and the frame of a full list.

use std::collections::BTreeMap;
use std::future;
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::{Stream, StreamExt};

use crate::store::{Entry, StoreError};
use crate::watcher::Event;

/// The top-level `generation` of a JSON value. For a document and its status, only a change of the document moves it.
pub fn generation(entry: &Entry) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Generation {
        generation: u64,
    }
    serde_json::from_str::<Generation>(&entry.value).ok().map(|found| found.generation)
}

/// A number for the value itself, whatever its index.
pub fn value(entry: &Entry) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    entry.value.hash(&mut hasher);
    Some(hasher.finish())
}

/// Keeps, of the events about an entry, those for which `predicate` has changed since the key was last seen.
pub fn changed<S>(
    stream: S,
    predicate: impl Fn(&Entry) -> Option<u64>,
) -> impl Stream<Item = Result<Event, StoreError>>
where
    S: Stream<Item = Result<Event, StoreError>>,
{
    let mut seen = Seen::default();
    stream.filter(move |item| {
        future::ready(match item {
            Ok(event) => seen.is_news(event, &predicate),
            Err(_) => true,
        })
    })
}

#[derive(Debug, Default)]
struct Seen {
    last: BTreeMap<String, u64>,
}

impl Seen {
    fn is_news(&mut self, event: &Event, predicate: impl Fn(&Entry) -> Option<u64>) -> bool {
        match event {
            Event::InitApply(entry) | Event::Apply(entry) => match predicate(entry) {
                Some(now) => self.last.insert(entry.key.clone(), now) != Some(now),
                None => {
                    self.last.remove(&entry.key);
                    true
                }
            },
            Event::Delete(key) => {
                self.last.remove(key);
                true
            }
            Event::Init | Event::InitDone | Event::Bookmark => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn entry(value: &str, modify_index: u64) -> Entry {
        Entry { key: "k".into(), value: value.into(), modify_index }
    }

    async fn kept(events: Vec<Event>, predicate: fn(&Entry) -> Option<u64>) -> Vec<Event> {
        changed(stream::iter(events.into_iter().map(Ok)), predicate).map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn a_write_that_leaves_the_generation_as_it_was_is_not_news() {
        let first = Event::InitApply(entry(r#"{"generation":1,"status":"a"}"#, 2));
        let status = Event::Apply(entry(r#"{"generation":1,"status":"b"}"#, 3));
        let spec = Event::Apply(entry(r#"{"generation":2,"status":"b"}"#, 4));
        let kept = kept(vec![first.clone(), status, spec.clone()], generation).await;
        assert_eq!(kept, [first, spec]);
    }

    #[tokio::test]
    async fn what_has_no_generation_is_always_news() {
        let events = vec![Event::Apply(entry("{}", 2)), Event::Apply(entry("not json", 3))];
        assert_eq!(kept(events.clone(), generation).await, events);
    }

    #[tokio::test]
    async fn a_key_that_was_gone_is_news_again_with_the_same_value() {
        let events = vec![
            Event::Apply(entry("x", 2)),
            Event::Apply(entry("x", 3)),
            Event::Delete("k".into()),
            Event::Apply(entry("x", 5)),
        ];
        let kept = kept(events.clone(), value).await;
        assert_eq!(kept, [events[0].clone(), events[2].clone(), events[3].clone()]);
    }
}
