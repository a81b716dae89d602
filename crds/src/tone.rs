//! How good a word is: the one place where that is said, for the tables of the command line and for the page.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// The word is neither good nor bad.
    Neutral,
    Good,
    /// The thing is not as it should be, or is not known.
    Doubtful,
    Bad,
}

impl Tone {
    pub fn of(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

/// Every word of a kind with its tone, as a page wants it.
pub fn of_all<T: Serialize + Copy>(words: &[T], tone: impl Fn(T) -> Tone) -> serde_json::Value {
    let of = |word: &T| Some((serde_json::to_value(word).ok()?.as_str()?.to_owned(), tone(*word)));
    words
        .iter()
        .filter_map(of)
        .map(|(word, tone)| (word, serde_json::json!(tone)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
