//! Tells which nodes have renewed their lease since a certain moment. A guest that is moved by hand is at its target
//! before its source has seen it go; so what a node said of its processes before that moment does not tell where the
//! guest is now.

use std::collections::BTreeMap;

use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::records::LeaseState;
use zsha_runtime::Moment;
use zsha_runtime::lease::Sight;

use crate::world::World;

/// A moment, and the renewals that had been seen by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub at: Moment,
    renewals: BTreeMap<NodeName, (Uuid, u64)>,
}

impl Heard {
    pub fn now(world: &World) -> Self {
        let renewal = |sight: &Sight| (sight.record.incarnation, sight.record.seq);
        let renewals = world.sights.iter().map(|(node, sight)| (node.clone(), renewal(sight))).collect();
        Self { at: world.now, renewals }
    }

    /// Another node that may live, and has not renewed its lease since.
    pub fn silent<'w>(&self, world: &'w World) -> Option<&'w NodeName> {
        let silent = |sight: &&Sight| {
            sight.record.state == LeaseState::Held && !sight.is_expired(world.now) && !self.is_before(sight)
        };
        world.others().find(silent).map(|sight| &sight.record.node)
    }

    /// True if this sight was sent since that moment. The next renewal after the one that had been seen may have been
    /// on its way already, so it takes two; of a life that had not been seen, two that both came since.
    pub fn is_before(&self, sight: &Sight) -> bool {
        match self.renewals.get(&sight.record.node) {
            Some((life, seq)) if *life == sight.record.incarnation => {
                sight.is_news && sight.record.seq >= seq.saturating_add(2)
            }
            Some(_) | None => sight.is_news && sight.follows >= self.at,
        }
    }
}
