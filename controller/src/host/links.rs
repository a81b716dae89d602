//! Reads bridges as the kernel tells of them over netlink: always those of this network namespace, whatever /sys shows.
//!
//! It looks and listens; it changes no link.

use std::num::NonZeroI32;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;

use super::BridgeFact;
use crate::observed::Observed;

/// The time for an answer. The kernel answers from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The pause before listening again when the line to the kernel broke, for instance because events were lost.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The longest name a link can have.
const NAME_LIMIT: usize = 15;

/// Says what there is under this name.
pub(super) async fn bridge(name: &str) -> Observed<BridgeFact> {
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Observed::Known(BridgeFact::Missing);
    }
    let looked = async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| error.to_string())?;
        let answering = tokio::spawn(connection);
        let fact = match link(&handle, name).await {
            Ok(Some(link)) if kind(&link) == Some(&InfoKind::Bridge) => {
                ports(&handle, link.header.index).await.map(|ports| bridge_of(&link, &ports))
            }
            Ok(Some(link)) => Ok(no_bridge(&link)),
            Ok(None) => Ok(BridgeFact::Missing),
            Err(error) => Err(error),
        };
        answering.abort();
        fact
    };
    match tokio::time::timeout(ANSWER_WITHIN, looked).await {
        Ok(Ok(fact)) => Observed::Known(fact),
        Ok(Err(reason)) => Observed::unknown(format!("cannot look at link '{name}': {reason}")),
        Err(_) => Observed::unknown(format!("no answer from the kernel about link '{name}'")),
    }
}

async fn link(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, String> {
    let asked = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let nodev = NonZeroI32::new(-rustix::io::Errno::NODEV.raw_os_error());
    match asked {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(error)) if error.code == nodev => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The links that are plugged into the bridge of this index.
async fn ports(handle: &Handle, bridge: u32) -> Result<Vec<LinkMessage>, String> {
    let all = handle.link().get().execute();
    let ports = all.try_filter(|link| std::future::ready(is_port_of(link, bridge)));
    ports.try_collect().await.map_err(|error| error.to_string())
}

fn is_port_of(link: &LinkMessage, bridge: u32) -> bool {
    link.attributes.contains(&LinkAttribute::Controller(bridge))
}

fn bridge_of(link: &LinkMessage, ports: &[LinkMessage]) -> BridgeFact {
    let mut cables = ports.iter().filter(|port| kind(port) != Some(&InfoKind::Tun));
    BridgeFact::Bridge {
        up: link.header.flags.contains(LinkFlags::Up),
        carrier: has_carrier(link)
            && cables.any(|cable| cable.header.flags.contains(LinkFlags::Up) && has_carrier(cable)),
    }
}

fn has_carrier(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::Carrier(carrier) if *carrier > 0))
}

fn no_bridge(link: &LinkMessage) -> BridgeFact {
    let kind = kind(link).map_or_else(|| "physical".to_owned(), ToString::to_string);
    BridgeFact::NotABridge { kind }
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

/// Moves the counter with every event about a link, and whenever events may have been missed. It never returns.
pub(super) async fn follow(changes: watch::Sender<u64>) {
    loop {
        match rtnetlink::new_multicast_connection(&[MulticastGroup::Link]) {
            Ok((connection, _handle, mut events)) => {
                changes.send_modify(|count| *count += 1);
                let listening = async {
                    while events.next().await.is_some() {
                        changes.send_modify(|count| *count += 1);
                    }
                };
                tokio::select! {
                    biased;
                    () = listening => {}
                    () = connection => {}
                }
                tracing::warn!("line to the kernel's link events lost");
            }
            Err(error) => tracing::warn!(error = %error, "cannot listen for link events"),
        }
        changes.send_modify(|count| *count += 1);
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.flags = flags;
        message.attributes = attributes;
        message
    }

    fn of_kind(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    fn carrying(kind: Option<InfoKind>, carrier: u8) -> LinkMessage {
        let kind = kind.map(of_kind);
        message(LinkFlags::Up, kind.into_iter().chain([LinkAttribute::Carrier(carrier)]).collect())
    }

    #[test]
    fn a_bridge_has_the_carrier_of_its_cables_and_not_of_its_guests() {
        let bridge = carrying(Some(InfoKind::Bridge), 1);
        let (cable, pulled) = (carrying(None, 1), carrying(None, 0));
        let guest = carrying(Some(InfoKind::Tun), 1);
        let told = |bridge: &LinkMessage, ports: &[&LinkMessage]| {
            let ports: Vec<_> = ports.iter().map(|port| (*port).clone()).collect();
            bridge_of(bridge, &ports)
        };
        let up = |carrier| BridgeFact::Bridge { up: true, carrier };
        assert_eq!(told(&bridge, &[&cable]), up(true));
        assert_eq!(told(&bridge, &[&pulled, &guest]), up(false));
        assert_eq!(told(&bridge, &[&pulled, &cable, &guest]), up(true));
        assert_eq!(told(&bridge, &[&guest]), up(false), "nothing leads out of it");
        assert_eq!(told(&bridge, &[]), up(false), "nor of this one");
        assert_eq!(told(&carrying(Some(InfoKind::Bridge), 0), &[&cable]), up(false));
        let down = message(LinkFlags::empty(), vec![of_kind(InfoKind::Bridge)]);
        assert_eq!(bridge_of(&down, &[]), BridgeFact::Bridge { up: false, carrier: false });
    }

    #[test]
    fn what_is_no_bridge_is_told_with_its_kind_and_a_port_belongs_to_one() {
        let veth = message(LinkFlags::Up, vec![of_kind(InfoKind::Veth)]);
        assert_eq!(no_bridge(&veth), BridgeFact::NotABridge { kind: "veth".to_owned() });
        let physical = BridgeFact::NotABridge { kind: "physical".to_owned() };
        assert_eq!(no_bridge(&message(LinkFlags::Up, Vec::new())), physical);
        let port = message(LinkFlags::Up, vec![LinkAttribute::Controller(7)]);
        assert!(is_port_of(&port, 7) && !is_port_of(&port, 8) && !is_port_of(&veth, 7));
    }

    #[tokio::test]
    async fn a_name_nobody_has_or_can_have_is_missing_and_the_loopback_is_no_bridge() {
        for name in ["zsha-none", "", "a-name-too-long-for-any-link"] {
            assert_eq!(bridge(name).await, Observed::Known(BridgeFact::Missing), "{name}");
        }
        assert!(matches!(bridge("lo").await, Observed::Known(BridgeFact::NotABridge { .. })));
    }
}
