//! The answer of `facts.sh` as types: a line a fact, its words apart by tabs.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::abilities;
use super::{
    Abilities, Answers, CephFacts, ConsulProgram, DiskUser, DomainFact, Facts, FileFact, Firewall, Image,
    Link, UnitFact, Unread,
};
use crate::install::{layout, peers};

pub(crate) fn parse(text: &str) -> Result<Facts, Unread> {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut facts = once(&lines)?;
    for line in &lines {
        let known = of_storage(&mut facts, line)
            || of_libvirt(&mut facts, line)
            || of_consul(&mut facts, line)?
            || abilities::take_in(&mut facts.abilities, line);
        if !known {
            of_host(&mut facts, line)?;
        }
    }
    Ok(facts)
}

/// The facts that every answer has, each once; the others are not known yet.
fn once(lines: &[Vec<&str>]) -> Result<Facts, Unread> {
    let find = |key: &'static str| lines.iter().find(|line| line[0] == key).ok_or(Unread::Lacks(key));
    let word = |key| find(key)?.get(1).copied().ok_or(Unread::Lacks(key));
    find("end")?;
    Ok(Facts {
        hostname: word("hostname")?.to_owned(),
        system: word("system")?.to_owned(),
        machine: word("machine")?.to_owned(),
        systemd: word("systemd")?.parse().unwrap_or(0),
        libvirt: filled(word("libvirt")?),
        qemu: filled(word("qemu")?),
        domain: Ok(None),
        disk_users: Vec::new(),
        now: word("now")?.parse().map_err(|_| Unread::Lacks("now"))?,
        asked: None,
        synchronized: yes_or_no(word("synchronized")?),
        image: None,
        bridges: BTreeMap::new(),
        abilities: Abilities::default(),
        free: BTreeMap::new(),
        files: BTreeMap::new(),
        units: BTreeMap::new(),
        consul: None,
        consul_runs: word("consul-runs")? == "yes",
        consul_answers: None,
        consul_user: word("consul-user")? == "yes",
        peers: None,
        firewalls: Vec::new(),
        installed: None,
        settings: None,
        ceph: None,
    })
}

/// Takes in a line about the image, by whatever storage. False: the line is about something else.
fn of_storage(facts: &mut Facts, line: &[&str]) -> bool {
    match line {
        ["ceph", driver, admin, image, key, caps, held] => {
            facts.ceph = Some(CephFacts {
                driver: yes_or_no(driver),
                no_admin: (*admin != "yes").then(|| (*admin).to_owned()),
                locks: *image != "unlocked",
                image: match *image {
                    "" => None,
                    "there" | "unlocked" => Some(Image::There),
                    "missing" => Some(Image::Missing),
                    why => Some(Image::Unknown(why.to_owned())),
                },
                caps_fit: *caps != "others",
                key: filled(key),
                held: filled(held),
            });
        }
        ["image", "there", kind] if kind.starts_with("regular") => facts.image = Some(Image::There),
        ["image", "there", kind] => facts.image = Some(Image::Unknown(format!("it is a {kind}"))),
        ["image", "missing"] => facts.image = Some(Image::Missing),
        ["image", "unknown", why @ ..] => facts.image = Some(Image::Unknown(why.join(" "))),
        _ => return false,
    }
    true
}

/// Takes in a line about libvirt's domains or the processes with the VM's disk. False: the line is about something
/// else.
fn of_libvirt(facts: &mut Facts, line: &[&str]) -> bool {
    match line {
        ["domain", uuid, persistent, autostart] => {
            let (defined, autostart) = (*persistent == "yes", *autostart == "enable");
            facts.domain = Ok(Some(DomainFact { uuid: (*uuid).to_owned(), defined, autostart }));
        }
        ["domain-unknown", why] => facts.domain = Err((*why).to_owned()),
        ["disk-process", pid, program, uuid] => {
            let [pid, program, uuid] = [pid, program, uuid].map(|word| (*word).to_owned());
            facts.disk_users.push(DiskUser::Process { pid, program, uuid });
        }
        ["disk-domain", name, state] => {
            let [name, state] = [name, state].map(|word| (*word).to_owned());
            facts.disk_users.push(DiskUser::Domain { name, state });
        }
        ["disk-unknown", why] => facts.disk_users.push(DiskUser::Unknown((*why).to_owned())),
        _ => return false,
    }
    true
}

/// Takes in a line about Consul. False: the line is about something else.
fn of_consul(facts: &mut Facts, line: &[&str]) -> Result<bool, Unread> {
    match line {
        ["consul", path, version] if !path.is_empty() => {
            facts.consul = Some(ConsulProgram { path: (*path).to_owned(), version: (*version).to_owned() });
        }
        ["consul-answers", what] => {
            facts.consul_answers = match *what {
                "yes" => Some(Answers::Consul),
                "other" => Some(Answers::Other),
                "no" => Some(Answers::Nothing),
                _ => None,
            }
        }
        ["consul-peers", base64] => {
            facts.peers = peers::listed(&decoded("the list of Consul's servers", base64)?)
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn of_host(facts: &mut Facts, line: &[&str]) -> Result<(), Unread> {
    let bad = || Unread::Line(line.join("\t"));
    match line {
        ["bridge", name, link] => {
            let link = match *link {
                "yes" => Link::Yes,
                "no" => Link::No,
                "none" => Link::NoBridge,
                "openvswitch" => Link::OpenVSwitch,
                "missing" => Link::Missing,
                _ => return Err(bad()),
            };
            facts.bridges.insert((*name).to_owned(), link);
        }
        ["free", at, kib] => {
            facts.free.insert((*at).to_owned(), kib.parse().map_err(|_| bad())?);
        }
        ["file", path, mode, sha256] => {
            let fact = FileFact { mode: (*mode).to_owned(), sha256: (*sha256).to_owned() };
            facts.files.insert((*path).to_owned(), fact);
        }
        ["unit", name, load, active, enabled] => {
            let [load, active, enabled] = [load, active, enabled].map(|word| (*word).to_owned());
            facts.units.insert((*name).to_owned(), UnitFact { load, active, enabled });
        }
        ["firewall", kind] => facts.firewalls.push(match *kind {
            "firewalld" => Firewall::Firewalld,
            "iptables" => Firewall::Iptables,
            "nftables" => Firewall::Nftables,
            _ => return Err(bad()),
        }),
        ["installed", base64] => {
            let text = decoded(layout::INSTALLED, base64)?;
            let read = serde_json::from_str(&text);
            facts.installed = Some(read.map_err(|error| Unread::File(layout::INSTALLED, error.to_string()))?);
        }
        ["settings", base64] => facts.settings = Some(decoded(layout::SETTINGS, base64)?),
        _ => {}
    }
    Ok(())
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn yes_or_no(word: &str) -> Option<bool> {
    match word {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn decoded(what: &'static str, base64: &str) -> Result<String, Unread> {
    let bytes = BASE64_STANDARD.decode(base64).map_err(|error| Unread::File(what, error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Unread::File(what, error.to_string()))
}
