//! The copy of the VM that the keeper is to find on its node, as its controller has said.
//!
//! A valid lease says that the node may run the VM, and not that whatever runs there is the VM: an administrator, or a
//! definition that was left on disk, may have started another. A copy counts only where this node's controller has said
//! before that there is to be one, in the very life of the lease that is led now.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The word of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Expectation {
    /// The controller's word is not known: a keeper of a build before this was kept has left its memory. Nothing is
    /// ended for want of it.
    Unsaid,
    /// There is to be no copy.
    Nothing,
    /// The copy that a migration brings. It does not execute before it is handed over.
    Arrival,
    /// This node's own copy: the ownership record names the node.
    Own,
}

/// The controller's word, and the life in which it was said. Another life begins only when no copy is there, and
/// expects none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    pub incarnation: Uuid,
    pub what: Expectation,
}

impl Expected {
    /// The value before anything was said, with nothing remembered.
    pub const NOTHING: Self = Self { incarnation: Uuid::nil(), what: Expectation::Nothing };

    pub fn in_life(&self, incarnation: Uuid) -> Expectation {
        if self.incarnation == incarnation { self.what } else { Expectation::Nothing }
    }
}

impl Expectation {
    /// True if a copy that is seen under a valid lease is to be ended. A copy that came by a migration (`incoming`) is
    /// left to the controllers: the VM may be nowhere else, and the person who moved it meant no harm.
    pub fn forbids(self, incoming: bool) -> bool {
        match self {
            Self::Nothing => !incoming,
            Self::Unsaid | Self::Arrival | Self::Own => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_in_another_life_is_no_word_of_this_one() {
        let (life, next) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let own = Expected { incarnation: life, what: Expectation::Own };
        assert_eq!((own.in_life(life), own.in_life(next)), (Expectation::Own, Expectation::Nothing));
        let unsaid = Expected { incarnation: life, what: Expectation::Unsaid };
        assert_eq!(unsaid.in_life(next), Expectation::Nothing);
    }

    #[test]
    fn only_a_copy_that_nobody_expects_and_no_migration_brought_is_to_be_ended() {
        for (said, booted, incoming) in [
            (Expectation::Unsaid, false, false),
            (Expectation::Nothing, true, false),
            (Expectation::Arrival, false, false),
            (Expectation::Own, false, false),
        ] {
            assert_eq!((said.forbids(false), said.forbids(true)), (booted, incoming), "{said:?}");
        }
    }
}
