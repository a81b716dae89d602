//! A record of the store as the judge last read it.

use zsha_runtime::store::MemoryStore;

/// A record as last read, decoded again only when its index has moved.
#[derive(Debug)]
pub(super) struct Cached<T> {
    key: String,
    index: u64,
    pub(super) value: Option<T>,
}

impl<T: serde::de::DeserializeOwned> Cached<T> {
    pub(super) fn new(key: String) -> Self {
        Self { key, index: 0, value: None }
    }

    /// Reads the record again. Returns the value from before if it has changed.
    pub(super) fn refresh(&mut self, store: &MemoryStore) -> Option<Option<T>> {
        let index = store.index_of(&self.key).unwrap_or_default();
        if index == self.index {
            return None;
        }
        self.index = index;
        let value = store.read(&self.key).and_then(|entry| serde_json::from_str(&entry.value).ok());
        Some(std::mem::replace(&mut self.value, value))
    }
}
