//! Decides whether nobody who is named may run the VM any more.

use zsha_crds::records::{LeaseState, Owner};
use zsha_runtime::lease::Sight;

use super::decision::Plan;
use super::ownership::{self, Standing};
use super::step::Step;
use crate::planted::{self, Bug};
use crate::world::{StoredVm, World};

/// The leases to fence so that the VM is free from everybody who is named, and why.
pub(super) struct Freed {
    pub(super) fence: Vec<Sight>,
    pub(super) because: String,
}

pub(super) fn freed(world: &World, stored: &StoredVm, plan: &mut Plan) -> Option<Freed> {
    let mut freed = Freed { fence: Vec::new(), because: String::new() };
    for owner in ownership::named(&stored.record) {
        // Where the VM was being moved to this very node, and no copy is here, nobody else can have one by that
        // migration.
        if owner.node == world.me && world.valid_epoch() == Some(owner.epoch) {
            continue;
        }
        match ownership::standing(world, owner) {
            Standing::Dead { because } => freed.because = because,
            Standing::Expired { .. } if planted::is_planted(Bug::NeverFence) => return None,
            Standing::Expired { sight } => {
                let secs = world.now.since(sight.sent_by).as_secs_f64();
                freed.because = match sight.record.state {
                    LeaseState::Lost => {
                        format!(
                            "the lease of {} was gone, and it has not written it anew for {secs:.0} s",
                            owner.node
                        )
                    }
                    _ => format!("{} has not renewed its lease for {secs:.1} s", owner.node),
                };
                freed.fence.push(*sight);
            }
            Standing::Gone { over } => {
                plan.wait(
                    "LeaseGone",
                    format!(
                        "the lease of {} is gone, or cannot be read; a record is put in its place",
                        owner.node
                    ),
                );
                plan.step(Step::ReplaceLease { of: owner.clone(), over });
                return None;
            }
            Standing::MayLive { until, because } => {
                if let Some(at) = until {
                    plan.recheck_at(at);
                }
                if until.is_none()
                    || is_lost(world, owner)
                    || world.unreadable_leases.contains_key(&owner.node)
                {
                    plan.wait("OwnerUnknown", because);
                }
                return None;
            }
        }
    }
    Some(freed)
}

fn is_lost(world: &World, owner: &Owner) -> bool {
    world.sights.get(&owner.node).is_some_and(|sight| sight.record.state == LeaseState::Lost)
}
