//! Says aloud, for the simulator's judge, what a node's controller is doing at this moment. In a build without the
//! simulator nobody listens, and the compiler removes it.

#[cfg(any(test, feature = "sim"))]
pub(crate) use listening::{Doing, decided, forget, last_start, of, planned_anew};

#[cfg(any(test, feature = "sim"))]
mod listening {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use zsha_crds::NodeName;

    use crate::plan::{self, Plan, Step};
    use crate::world::World;

    thread_local! {
        static DOING: RefCell<BTreeMap<NodeName, Step>> = RefCell::default();
        static STARTED: RefCell<BTreeMap<NodeName, u64>> = RefCell::default();
        static PLANNED_ANEW: RefCell<Vec<String>> = RefCell::default();
    }

    /// One step, from its beginning until it is done or given up.
    #[derive(Debug)]
    pub(crate) struct Doing(NodeName);

    impl Doing {
        pub(crate) fn begin(node: &NodeName, step: &Step) -> Self {
            DOING.with_borrow_mut(|doing| doing.insert(node.clone(), step.clone()));
            if let Step::Start { epoch, .. } = step {
                STARTED.with_borrow_mut(|started| started.insert(node.clone(), *epoch));
            }
            Self(node.clone())
        }
    }

    impl Drop for Doing {
        fn drop(&mut self) {
            DOING.with_borrow_mut(|doing| doing.remove(&self.0));
        }
    }

    /// Hears that this was decided. The same world once more, with the same notes, must give the same plan.
    pub(crate) fn decided(world: &World, plan: &Plan) {
        let again = plan::plan(world, &plan.notes);
        if again != *plan {
            let what = format!("{} plans {plan:?}, and then {again:?}", world.me);
            PLANNED_ANEW.with_borrow_mut(|anew| anew.push(what));
        }
    }

    /// The plans that were different the second time.
    pub(crate) fn planned_anew() -> Vec<String> {
        PLANNED_ANEW.with_borrow_mut(std::mem::take)
    }

    /// The step that the controller of that node is doing.
    pub(crate) fn of(node: &NodeName) -> Option<Step> {
        DOING.with_borrow(|doing| doing.get(node).cloned())
    }

    /// The epoch in which the controller of that node last began a start.
    pub(crate) fn last_start(node: &NodeName) -> Option<u64> {
        STARTED.with_borrow(|started| started.get(node).copied())
    }

    /// Another simulation begins on this thread.
    pub(crate) fn forget() {
        DOING.with_borrow_mut(BTreeMap::clear);
        STARTED.with_borrow_mut(BTreeMap::clear);
        PLANNED_ANEW.with_borrow_mut(Vec::clear);
    }
}

#[cfg(not(any(test, feature = "sim")))]
#[derive(Debug)]
pub(crate) struct Doing;

#[cfg(not(any(test, feature = "sim")))]
impl Doing {
    pub(crate) const fn begin(_: &zsha_crds::NodeName, _: &crate::plan::Step) -> Self {
        Self
    }
}

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn decided(_: &crate::world::World, _: &crate::plan::Plan) {}
