//! The addresses at which Consul answers, and the choice which of several to ask first. It sends nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::Uri;
use tokio::time::Instant;

/// The time on another endpoint after which the first, the local agent, is tried again. The local agent is the nearest,
/// and the only one whose loss says something about this node. The time is short, since until then the loss of another
/// node blinds this one for seconds. Where the local agent is gone for good, it costs a refused connection now and
/// then.
const RETURN_AFTER: Duration = Duration::from_secs(5);

/// `http://host:port` or `https://host:port`, without a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    base: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is no address of Consul: {reason}; give http://HOST:PORT or https://HOST:PORT")]
pub struct InvalidEndpoint {
    given: String,
    reason: &'static str,
}

impl Endpoint {
    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.base
    }

    pub(super) fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    /// `HOST:PORT` alone means http, as Consul's own commands take it.
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = |reason| InvalidEndpoint { given: text.to_owned(), reason };
        let text = text.trim();
        if text.starts_with("unix:") || text.starts_with('/') {
            return Err(invalid(
                "zsha speaks to no socket file, so its HTTP has to listen on an address as well",
            ));
        }
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|_| invalid("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => scheme,
            Some(_) | None => return Err(invalid("only http and https are spoken")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("it names no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(invalid("it has a path"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(invalid("a user name does not belong in it; the token comes from a file"));
        }
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 8501 } else { 8500 });
        Ok(Self { base: format!("{scheme}://{host}:{port}") })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.base)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The choice which endpoint to ask first.
#[derive(Debug)]
pub(super) struct Preference {
    count: usize,
    current: Mutex<Current>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    place: usize,
    first_tried: Instant,
}

impl Preference {
    pub(super) fn new(count: usize, now: Instant) -> Self {
        Self { count, current: Mutex::new(Current { place: 0, first_tried: now }) }
    }

    /// Every endpoint once, in the order to ask them.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<usize> = (0..self.count).map(|step| (current.place + step) % self.count).collect();
        if current.place != 0 && now.duration_since(current.first_tried) >= RETURN_AFTER {
            current.first_tried = now;
            order.retain(|place| *place != 0);
            order.insert(0, 0);
        }
        order
    }

    /// Notes that the endpoint answered. It is asked first from now on if it was asked because others before it had
    /// failed, or if it is the local one. A watch that began on a remote agent, and ends long after the local one is
    /// back, changes nothing.
    pub(super) fn answered(&self, place: usize, others_failed: bool, now: Instant) {
        if place != 0 && !others_failed {
            return;
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.place == 0 && place != 0 {
            current.first_tried = now;
        }
        current.place = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_scheme_and_port() {
        let base = |text: &str| text.parse::<Endpoint>().unwrap().as_str().to_owned();
        assert_eq!(base("127.0.0.1:8500"), "http://127.0.0.1:8500");
        assert_eq!(base("https://consul.example"), "https://consul.example:8501");
        assert_eq!(base("http://[::1]:8500/"), "http://[::1]:8500");
    }

    #[test]
    fn an_address_with_a_path_a_user_or_another_scheme_is_refused() {
        for text in [
            "http://h:1/v1",
            "unix:///run/consul.sock",
            "/run/consul.sock",
            "http://me:secret@h:1",
            "http://",
            "",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_endpoint_that_answered_is_asked_first_and_the_local_agent_again_after_a_while() {
        let preference = Preference::new(3, Instant::now());
        assert_eq!(preference.order(Instant::now()), [0, 1, 2]);
        preference.answered(1, true, Instant::now());
        assert_eq!(preference.order(Instant::now()), [1, 2, 0]);
        tokio::time::advance(RETURN_AFTER).await;
        assert_eq!(preference.order(Instant::now()), [0, 1, 2]);
        assert_eq!(preference.order(Instant::now()), [1, 2, 0], "one try at a time");
        preference.answered(0, false, Instant::now());
        preference.answered(1, false, Instant::now());
        assert_eq!(
            preference.order(Instant::now()),
            [0, 1, 2],
            "a late answer of the remote one changes nothing"
        );
    }
}
