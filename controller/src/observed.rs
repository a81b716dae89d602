//! The result of a look: a value that is known, or unknown with the reason. What could not be looked at is never
//! absent.

use std::fmt;

/// Something looked at: known, or not, and why not. Unknown is never read as empty, absent or false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed<T> {
    Known(T),
    Unknown(String),
}

impl<T> Observed<T> {
    pub fn unknown(why: impl fmt::Display) -> Self {
        Self::Unknown(why.to_string())
    }

    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Goes on with the value where it is known.
    pub fn and_then<U>(self, then: impl FnOnce(T) -> Observed<U>) -> Observed<U> {
        match self {
            Self::Known(value) => then(value),
            Self::Unknown(why) => Observed::Unknown(why),
        }
    }

    pub fn from_result<E: fmt::Display>(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}
