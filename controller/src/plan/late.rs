//! Whether the lease of the node that runs the VM was in danger: nothing came of it, and people should know.

use super::Notes;
use crate::world::World;

/// What to tell, once for each time. What was so before this controller began is no news.
pub fn news(world: &World, notes: &mut Notes) -> Option<String> {
    let late = world.lease.known()?.late;
    let count = late.map_or(0, |late| late.count);
    let told = notes.late_told.replace(count)?;
    let late = late.filter(|late| late.count > told)?;
    let has_copy = world.local.known().is_some_and(|local| local.has_process());
    has_copy.then(|| {
        format!(
            "the lease of {} could not be renewed for {:.1} s; after {} s the VM would have been ended. It is renewed again. \
             Look at Consul's load and leader, and at the network between the nodes",
            world.me,
            late.gap.as_secs_f64(),
            late.of.as_secs_f64()
        )
    })
}
