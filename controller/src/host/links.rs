//! Bridges, as the kernel tells of them over netlink: always of this network namespace, whatever /sys shows.
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

/// The kernel answers from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Before listening again when the line to the kernel broke, for instance because events were lost.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Longest name a link can have.
const NAME_LIMIT: usize = 15;

/// What there is under this name.
pub(super) async fn bridge(name: &str) -> Observed<BridgeFact> {
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Observed::Known(BridgeFact::Missing);
    }
    let looked = async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| error.to_string())?;
        let answering = tokio::spawn(connection);
        let link = link(&handle, name).await;
        answering.abort();
        link
    };
    match tokio::time::timeout(ANSWER_WITHIN, looked).await {
        Ok(Ok(link)) => Observed::Known(link.as_ref().map_or(BridgeFact::Missing, fact)),
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

fn fact(link: &LinkMessage) -> BridgeFact {
    match kind(link) {
        Some(InfoKind::Bridge) => BridgeFact::Bridge {
            up: link.header.flags.contains(LinkFlags::Up),
            carrier: link
                .attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::Carrier(carrier) if *carrier > 0)),
        },
        Some(other) => BridgeFact::NotABridge { kind: other.to_string() },
        None => BridgeFact::NotABridge { kind: "physical".to_owned() },
    }
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

/// Never returns: moves the counter with every event about a link, and whenever events may have been missed.
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

    #[test]
    fn a_bridge_is_told_with_its_state_and_anything_else_with_its_kind() {
        let both = vec![of_kind(InfoKind::Bridge), LinkAttribute::Carrier(1)];
        assert_eq!(fact(&message(LinkFlags::Up, both)), BridgeFact::Bridge { up: true, carrier: true });
        let dead = vec![of_kind(InfoKind::Bridge), LinkAttribute::Carrier(0)];
        assert_eq!(fact(&message(LinkFlags::Up, dead)), BridgeFact::Bridge { up: true, carrier: false });
        let down = vec![of_kind(InfoKind::Bridge)];
        assert_eq!(
            fact(&message(LinkFlags::empty(), down)),
            BridgeFact::Bridge { up: false, carrier: false }
        );
        let veth = message(LinkFlags::Up, vec![of_kind(InfoKind::Veth)]);
        assert_eq!(fact(&veth), BridgeFact::NotABridge { kind: "veth".to_owned() });
        assert_eq!(
            fact(&message(LinkFlags::Up, Vec::new())),
            BridgeFact::NotABridge { kind: "physical".to_owned() }
        );
    }

    #[tokio::test]
    async fn a_name_nobody_has_or_can_have_is_missing_and_the_loopback_is_no_bridge() {
        for name in ["zsha-none", "", "a-name-too-long-for-any-link"] {
            assert_eq!(bridge(name).await, Observed::Known(BridgeFact::Missing), "{name}");
        }
        assert!(matches!(bridge("lo").await, Observed::Known(BridgeFact::NotABridge { .. })));
    }
}
