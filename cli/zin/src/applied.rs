//! Whether the guest is as it was told to be. What can be seen without asking anybody: its own addresses, the resolvers and
//! the time sources in its files.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use serde::Serialize;

use crate::told::Told;

/// The files where a resolver's addresses are; chrony's sources follow.
const RESOLVERS: [&str; 2] = ["run/systemd/resolve/resolv.conf", "etc/resolv.conf"];
const CHRONY: [&str; 3] = ["etc/chrony.conf", "etc/chrony/chrony.conf", "run/chrony.d"];
const CHRONY_PARTS: [&str; 3] = ["etc/chrony.d", "etc/chrony/sources.d", "etc/chrony/conf.d"];

/// The guest's system, as it is seen. A text is None where there is no such file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Guest {
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    pub(crate) resolvers: Option<String>,
    pub(crate) time_sources: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    kind: &'static str,
    version: &'static str,
    config_id: String,
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: &'static str,
    told: String,
    /// None: the guest does not show it.
    applied: Option<bool>,
}

impl Guest {
    pub(crate) fn look(root: &Path) -> Self {
        let read = |file: &&str| std::fs::read_to_string(root.join(file)).ok();
        let parts = CHRONY_PARTS.iter().filter_map(|part| std::fs::read_dir(root.join(part)).ok());
        let parts = parts.flatten().flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        let time: Vec<_> = CHRONY.iter().filter_map(read).chain(parts).collect();
        Self {
            addresses: BTreeSet::new(),
            resolvers: RESOLVERS.iter().find_map(read),
            time_sources: (!time.is_empty()).then(|| time.join("\n")),
        }
    }

    /// True if the address is the guest's own: only such an address can be bound to.
    fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address) || UdpSocket::bind((address, 0)).is_ok()
    }
}

pub(crate) fn report(told: &Told, guest: &Guest) -> Report {
    let mut items = Vec::new();
    if let Some(address) = told.management {
        let applied = Some(guest.has(address));
        items.push(Item { name: "Management IP", told: address.to_string(), applied });
    }
    for server in &told.dns {
        let applied = guest.resolvers.as_deref().map(|text| names(text, "nameserver", &server.to_string()));
        items.push(Item { name: "DNS", told: server.to_string(), applied });
    }
    for server in &told.time_servers {
        let has = |text: &str| ["server", "pool", "peer"].iter().any(|word| names(text, word, server));
        let applied = guest.time_sources.as_deref().map(has);
        items.push(Item { name: "Chrony server", told: server.clone(), applied });
    }
    if let Some(address) = told.console_proxy {
        // Of whoever reaches the consoles from outside: no address of the guest's.
        items.push(Item { name: "Console proxy IP", told: address.to_string(), applied: None });
    }
    Report { kind: "GuestConfig", version: env!("CARGO_PKG_VERSION"), config_id: told.id.clone(), items }
}

/// True if a line says `WORD VALUE`.
fn names(text: &str, word: &str, value: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(word) && words.next() == Some(value)
    })
}

impl Report {
    /// True if the configuration is applied. What the guest does not show is not held against it.
    pub(crate) fn is_applied(&self) -> bool {
        self.items.iter().all(|item| item.applied != Some(false))
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("Configuration: {}\n", self.config_id);
        for item in &self.items {
            let state = match item.applied {
                Some(true) => "applied",
                Some(false) => "NOT APPLIED",
                None => "told",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {} ({state})", item.name, item.told);
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::tests::example;

    fn guest() -> Guest {
        Guest {
            addresses: BTreeSet::from([Ipv4Addr::new(172, 20, 10, 3)]),
            resolvers: Some("# by cloud-init\nnameserver 172.20.10.1\nnameserver  172.20.10.2\n".to_owned()),
            time_sources: Some("pool 192.168.10.11 iburst\nserver time.lan\n".to_owned()),
        }
    }

    #[test]
    fn a_guest_that_is_as_it_was_told_says_so() {
        let report = report(&example(), &guest());
        assert!(report.is_applied());
        insta::assert_snapshot!(format!("{}{}", report.text(), report.json()));
    }

    #[test]
    fn what_is_not_applied_stands_out_and_what_is_not_shown_is_not_held_against_it() {
        let strange = Guest { addresses: BTreeSet::new(), resolvers: None, ..guest() };
        let missing = report(&example(), &strange);
        assert!(!missing.is_applied());
        assert!(missing.text().contains("Management IP: 172.20.10.3 (NOT APPLIED)\nDNS: 172.20.10.1 (told)"));
        let commented = Guest { time_sources: Some("#server time.lan\n".to_owned()), ..guest() };
        assert!(report(&example(), &commented).text().contains("time.lan (NOT APPLIED)"));
    }

    #[test]
    fn an_address_of_its_own_is_known_without_a_list() {
        assert!(Guest::default().has(Ipv4Addr::LOCALHOST));
        assert!(!Guest::default().has(Ipv4Addr::new(192, 0, 2, 1)));
    }
}
