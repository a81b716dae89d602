//! Cases on bridges. Never here: storage.

use super::{ANOTHER, BRIDGE, Link, Rig, bridge, brings, comes_to, look};
use super::{BridgeFact, HostFacts, Observed};

fn is_bridge(facts: &HostFacts, wanted: &BridgeFact) -> bool {
    facts.bridges[BRIDGE].known() == Some(wanted)
}

pub(crate) async fn a_link_nobody_has_is_missing(rig: &dyn Rig) {
    assert_eq!(bridge(rig).await, Observed::Known(BridgeFact::Missing));
}

pub(crate) async fn a_bridge_is_told_with_whether_it_is_up_and_has_a_carrier(rig: &dyn Rig) {
    rig.set_link(BRIDGE, Link::Carrying).await;
    comes_to(rig, "a bridge that carries", |facts| {
        is_bridge(facts, &BridgeFact::Bridge { up: true, carrier: true })
    })
    .await;
    rig.set_link(BRIDGE, Link::Dead).await;
    comes_to(rig, "a bridge whose cable is dead", |facts| {
        is_bridge(facts, &BridgeFact::Bridge { up: true, carrier: false })
    })
    .await;
    rig.set_link(BRIDGE, Link::DeadWithGuest).await;
    comes_to(rig, "a bridge whose cable is dead, with a guest in it", |facts| {
        is_bridge(facts, &BridgeFact::Bridge { up: true, carrier: false })
    })
    .await;
    rig.set_link(BRIDGE, Link::Down).await;
    // What a bridge that is down says of its carrier means nothing.
    assert!(matches!(bridge(rig).await, Observed::Known(BridgeFact::Bridge { up: false, .. })));
}

pub(crate) async fn a_link_that_is_no_bridge_is_told_with_its_kind(rig: &dyn Rig) {
    rig.set_link(BRIDGE, Link::Veth).await;
    rig.set_link(ANOTHER, Link::Down).await;
    let facts = look(rig).await;
    assert_eq!(facts.bridges[BRIDGE], Observed::Known(BridgeFact::NotABridge { kind: "veth".to_owned() }));
    assert!(matches!(facts.bridges[ANOTHER], Observed::Known(BridgeFact::Bridge { up: false, .. })));
}

pub(crate) async fn a_bridge_that_comes_and_goes_is_an_event(rig: &dyn Rig) {
    let there = |facts: &HostFacts| is_bridge(facts, &BridgeFact::Bridge { up: true, carrier: true });
    for _ in 0..2 {
        brings(rig, rig.set_link(BRIDGE, Link::Carrying), "a bridge comes", there).await;
        let gone = |facts: &HostFacts| is_bridge(facts, &BridgeFact::Missing);
        brings(rig, rig.set_link(BRIDGE, Link::None), "a bridge goes", gone).await;
    }
}

pub(crate) async fn a_bridge_that_goes_down_is_an_event(rig: &dyn Rig) {
    rig.set_link(BRIDGE, Link::Dead).await;
    let down = |facts: &HostFacts| {
        matches!(facts.bridges[BRIDGE], Observed::Known(BridgeFact::Bridge { up: false, .. }))
    };
    brings(rig, rig.set_link(BRIDGE, Link::Down), "a bridge goes down", down).await;
}
