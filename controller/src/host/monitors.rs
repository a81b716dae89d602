//! Says whether Ceph's monitors take connections: where none does, no guest reaches its image. Nothing is sent to them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::ImageFact;
use crate::hypervisor::domain_xml::host_and_port;
use crate::observed::Observed;

/// The time to look up a name and make a connection. One lost packet of each fits.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The ports where the document names none: of Ceph's second protocol, and of its first.
const PORTS: [u16; 2] = [3300, 6789];

/// The reason why a monitor was not reached.
enum Missed {
    /// The monitor, or the way to it, says no.
    Refused(String),
    /// This very host could not ask.
    NotAsked(String),
}

/// Asks the monitors. The first that answers is enough.
pub(super) async fn fact(monitors: &[String]) -> Observed<ImageFact> {
    let mut tries: FuturesUnordered<_> =
        monitors.iter().flat_map(|monitor| ways(monitor)).map(|(host, port)| reach(host, port)).collect();
    let (mut refused, mut not_asked) = (Vec::new(), None);
    while let Some(tried) = tries.next().await {
        match tried {
            Ok(address) => return Observed::Known(ImageFact::Reached { monitor: address.to_string() }),
            Err(Missed::Refused(reason)) => refused.push(reason),
            Err(Missed::NotAsked(reason)) => not_asked = Some(reason),
        }
    }
    refused.sort();
    match not_asked {
        Some(reason) => Observed::Unknown(reason),
        None => Observed::Known(ImageFact::NotReached { reason: refused.join("; ") }),
    }
}

fn ways(monitor: &str) -> Vec<(String, u16)> {
    let (host, port) = host_and_port(monitor);
    let ports = port.map_or(PORTS.to_vec(), |port| port.parse().into_iter().collect());
    ports.into_iter().map(|port| (host.clone().into_owned(), port)).collect()
}

async fn reach(host: String, port: u16) -> Result<SocketAddr, Missed> {
    let told = |why: &dyn std::fmt::Display| format!("{host} port {port}: {why}");
    let late = told(&format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
    let until = Instant::now() + ANSWER_WITHIN;
    // A name that nobody looks up in time says nothing about the monitor: the look-up may not even have begun.
    let addresses = match timeout_at(until, lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(Missed::NotAsked(told(&error))),
        Err(_) => return Err(Missed::NotAsked(told(&"its name was not looked up in time"))),
    };
    let connected = async {
        let mut last = io::Error::new(io::ErrorKind::HostUnreachable, "the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match timeout_at(until, connected).await {
        Ok(Ok(address)) => Ok(address),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut => Missed::Refused(told(&error)),
            _ => Missed::NotAsked(told(&error)),
        }),
        Err(_) => Err(Missed::Refused(late)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn one_that_answers_is_enough_and_of_those_that_do_not_each_is_named() {
        let ((there, answers), (gone, first), (also_gone, second)) =
            (listener().await, listener().await, listener().await);
        drop((gone, also_gone));
        let seen = fact(&[first.clone(), answers.clone()]).await;
        assert_eq!(seen, Observed::Known(ImageFact::Reached { monitor: answers }));
        drop(there);
        let Observed::Known(ImageFact::NotReached { reason }) = fact(&[first.clone(), second.clone()]).await
        else {
            panic!("reached, or not known");
        };
        for address in [first, second] {
            assert!(reason.contains(&address.replace(':', " port ")), "{address}: {reason}");
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_can_look_up_says_nothing_about_the_monitor() {
        assert!(matches!(fact(&["mon.invalid:6789".to_owned()]).await, Observed::Unknown(_)));
    }

    #[test]
    fn without_a_port_both_of_cephs_are_tried() {
        let of = |port| ("ceph-1".to_owned(), port);
        assert_eq!(ways("ceph-1"), [of(3300), of(6789)]);
        assert_eq!(ways("ceph-1:7000"), [of(7000)]);
        assert_eq!(ways("[fd00::1]:6789"), [("fd00::1".to_owned(), 6789)]);
    }
}
