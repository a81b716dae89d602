//! What a node says of itself: one script, run there as root, and its answer as types. It reads and changes nothing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zsha_crds::HaCluster;

use super::ceph::CephLogin;
use super::layout;
use super::ssh::quoted;

const SCRIPT: &str = include_str!("facts.sh");

/// Everything that is asked of a node before anything is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) hostname: String,
    pub(crate) system: String,
    pub(crate) machine: String,
    /// 0: systemd is not there.
    pub(crate) systemd: u32,
    /// Of the daemon; none where there is none.
    pub(crate) libvirt: Option<String>,
    pub(crate) qemu: Option<String>,
    /// What libvirt has by the VM's name, whosever it is. An error is why it does not say.
    pub(crate) domain: Result<Option<DomainFact>, String>,
    /// Who has the VM's disk there beside the domain of its name; the VM itself is among the processes.
    pub(crate) disk_users: Vec<DiskUser>,
    /// Seconds since 1970 by the node's clock.
    pub(crate) now: i64,
    /// Whether something keeps its clock; none where it does not say.
    pub(crate) synchronized: Option<bool>,
    /// None where the image is in Ceph.
    pub(crate) image: Option<Image>,
    pub(crate) bridges: BTreeMap<String, Link>,
    /// KiB by directory.
    pub(crate) free: BTreeMap<String, u64>,
    /// Of the files of ours that are there.
    pub(crate) files: BTreeMap<String, FileFact>,
    pub(crate) units: BTreeMap<String, UnitFact>,
    pub(crate) consul: Option<ConsulProgram>,
    pub(crate) consul_runs: bool,
    pub(crate) consul_user: bool,
    pub(crate) firewalls: Vec<Firewall>,
    pub(crate) installed: Option<Installed>,
    /// What stands in the controller's settings.
    pub(crate) settings: Option<String>,
    /// Only where the image is in Ceph.
    pub(crate) ceph: Option<CephFacts>,
}

/// A domain of libvirt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainFact {
    pub(crate) uuid: String,
    /// Its definition is on the disk, beside a process or without one.
    pub(crate) defined: bool,
    /// It is started when the host boots.
    pub(crate) autostart: bool,
}

/// What runs by the VM's disk, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskUser {
    Process {
        pid: String,
        program: String,
        /// As it was started with; empty where it was with none.
        uuid: String,
    },
    /// A domain of libvirt's of another name than the VM's.
    Domain { name: String, state: String },
    /// A domain of which libvirt does not say what disks it has, and why.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    There,
    Missing,
    /// The share does not answer, or something that is no file is there.
    Unknown(String),
}

/// A node and Ceph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CephFacts {
    /// Whether its QEMU can read what is there; none where that was not found out.
    pub(crate) driver: Option<bool>,
    /// Why it cannot administer Ceph, where it cannot.
    pub(crate) no_admin: Option<String>,
    /// As an administrator sees it; none where it is none.
    pub(crate) image: Option<Image>,
    /// Whether a client that takes the image over shuts the one before it out; as an administrator sees it.
    pub(crate) locks: bool,
    /// Whether the cluster's user may there what it needs, and no more; as an administrator sees it.
    pub(crate) caps_fit: bool,
    /// SHA-256 of the key that the cluster's user has there; none where there is no such user, or none was asked.
    pub(crate) key: Option<String>,
    /// SHA-256 of the key that its libvirt holds.
    pub(crate) held: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Yes,
    No,
    /// A device of this name, and no bridge.
    NoBridge,
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFact {
    /// Octal, as `stat` prints it.
    pub(crate) mode: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UnitFact {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) enabled: String,
}

impl UnitFact {
    pub(crate) fn exists(&self) -> bool {
        self.load == "loaded" || self.load == "masked"
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active == "active"
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsulProgram {
    pub(crate) path: String,
    pub(crate) version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Firewall {
    Firewalld,
    Iptables,
    Nftables,
}

/// What install has made on a node, kept there: uninstall takes away this and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Installed {
    pub(crate) cluster: String,
    pub(crate) node: String,
    /// The agent's unit, settings and data are ours.
    pub(crate) consul: bool,
    /// And so is its program.
    pub(crate) consul_program: bool,
    pub(crate) consul_user: bool,
    pub(crate) acl: bool,
    pub(crate) masked_libvirt_guests: bool,
    /// libvirt was given a key of Ceph.
    #[serde(default)]
    pub(crate) ceph: bool,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Unread {
    #[error("the node's answer breaks off: it lacks '{0}'")]
    Lacks(&'static str),
    #[error("the node's answer has a line that means nothing: {0:?}")]
    Line(String),
    #[error("{0} there cannot be read: {1}")]
    File(&'static str, String),
}

/// The script for a cluster of this document.
pub(crate) fn script(document: &HaCluster) -> String {
    let words = |words: Vec<&str>| quoted(&words.join(" "));
    let image = document.image_path().map(|path| path.display().to_string()).unwrap_or_default();
    let bridges = document.bridges_named();
    let ceph = CephLogin::of(document);
    let of_ceph = |word: fn(&CephLogin) -> String| quoted(&ceph.as_ref().map(word).unwrap_or_default());
    let disk = ceph.as_ref().map_or_else(|| image.clone(), CephLogin::image);
    format!(
        "DOMAIN={}\nIMAGE={}\nDISK={}\nBRIDGES={}\nFILES={}\nUNITS={}\nCEPH_CLIENT={}\nCEPH_SECRET={}\nCEPH_IMAGE={}\n\
         CEPH_CAPS={}\nCEPH_MONITORS={}\n{SCRIPT}",
        quoted(document.vm().name.as_str()),
        quoted(&image),
        quoted(&disk),
        words(bridges.iter().map(String::as_str).collect()),
        words(layout::FILES.to_vec()),
        words(layout::UNITS_ASKED.to_vec()),
        of_ceph(CephLogin::client),
        of_ceph(|login| login.secret.to_string()),
        of_ceph(CephLogin::image),
        of_ceph(CephLogin::caps),
        of_ceph(|login| login.monitors.clone()),
    )
}

pub(crate) fn parse(text: &str) -> Result<Facts, Unread> {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let all = |key: &'static str| lines.iter().filter(move |line| line[0] == key);
    let word = |key: &'static str| -> Result<&str, Unread> {
        all(key).next().and_then(|line| line.get(1).copied()).ok_or(Unread::Lacks(key))
    };
    all("end").next().ok_or(Unread::Lacks("end"))?;
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let bad = |line: &[&str]| Unread::Line(line.join("\t"));

    let mut facts = Facts {
        hostname: word("hostname")?.to_owned(),
        system: word("system")?.to_owned(),
        machine: word("machine")?.to_owned(),
        systemd: word("systemd")?.parse().unwrap_or(0),
        libvirt: filled(word("libvirt")?),
        qemu: filled(word("qemu")?),
        domain: Ok(None),
        disk_users: Vec::new(),
        now: word("now")?.parse().map_err(|_| Unread::Lacks("now"))?,
        synchronized: match word("synchronized")? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        },
        image: None,
        bridges: BTreeMap::new(),
        free: BTreeMap::new(),
        files: BTreeMap::new(),
        units: BTreeMap::new(),
        consul: None,
        consul_runs: word("consul-runs")? == "yes",
        consul_user: word("consul-user")? == "yes",
        firewalls: Vec::new(),
        installed: None,
        settings: None,
        ceph: None,
    };
    for line in &lines {
        match line.as_slice() {
            ["ceph", driver, admin, image, key, caps, held] => {
                facts.ceph = Some(CephFacts {
                    driver: match *driver {
                        "yes" => Some(true),
                        "no" => Some(false),
                        _ => None,
                    },
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
            ["domain", uuid, persistent, autostart] => {
                let (defined, autostart) = (*persistent == "yes", *autostart == "enable");
                facts.domain = Ok(Some(DomainFact { uuid: (*uuid).to_owned(), defined, autostart }));
            }
            ["disk-process", pid, program, uuid] => {
                let [pid, program, uuid] = [pid, program, uuid].map(|word| (*word).to_owned());
                facts.disk_users.push(DiskUser::Process { pid, program, uuid });
            }
            ["disk-domain", name, state] => {
                let [name, state] = [name, state].map(|word| (*word).to_owned());
                facts.disk_users.push(DiskUser::Domain { name, state });
            }
            ["disk-unknown", why] => facts.disk_users.push(DiskUser::Unknown((*why).to_owned())),
            ["domain-unknown", why] => facts.domain = Err((*why).to_owned()),
            ["image", "there", kind] if kind.starts_with("regular") => facts.image = Some(Image::There),
            ["image", "there", kind] => facts.image = Some(Image::Unknown(format!("it is a {kind}"))),
            ["image", "missing"] => facts.image = Some(Image::Missing),
            ["image", "unknown", why @ ..] => facts.image = Some(Image::Unknown(why.join(" "))),
            ["bridge", name, link] => {
                let link = match *link {
                    "yes" => Link::Yes,
                    "no" => Link::No,
                    "none" => Link::NoBridge,
                    "missing" => Link::Missing,
                    _ => return Err(bad(line)),
                };
                facts.bridges.insert((*name).to_owned(), link);
            }
            ["free", at, kib] => {
                facts.free.insert((*at).to_owned(), kib.parse().map_err(|_| bad(line))?);
            }
            ["file", path, mode, sha256] => {
                let fact = FileFact { mode: (*mode).to_owned(), sha256: (*sha256).to_owned() };
                facts.files.insert((*path).to_owned(), fact);
            }
            ["unit", name, load, active, enabled] => {
                let [load, active, enabled] = [load, active, enabled].map(|word| (*word).to_owned());
                facts.units.insert((*name).to_owned(), UnitFact { load, active, enabled });
            }
            ["consul", path, version] if !path.is_empty() => {
                facts.consul =
                    Some(ConsulProgram { path: (*path).to_owned(), version: (*version).to_owned() });
            }
            ["firewall", kind] => facts.firewalls.push(match *kind {
                "firewalld" => Firewall::Firewalld,
                "iptables" => Firewall::Iptables,
                "nftables" => Firewall::Nftables,
                _ => return Err(bad(line)),
            }),
            ["installed", base64] => {
                let what = "/etc/zsha/installed.json";
                let text = decoded(what, base64)?;
                let installed =
                    serde_json::from_str(&text).map_err(|error| Unread::File(what, error.to_string()))?;
                facts.installed = Some(installed);
            }
            ["settings", base64] => facts.settings = Some(decoded(layout::SETTINGS, base64)?),
            _ => {}
        }
    }
    Ok(facts)
}

fn decoded(what: &'static str, base64: &str) -> Result<String, Unread> {
    let bytes = BASE64_STANDARD.decode(base64).map_err(|error| Unread::File(what, error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Unread::File(what, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "hostname\tnfs-1\nsystem\tDebian GNU/Linux 12 (bookworm)\nmachine\tx86_64\nsystemd\t252\n\
        libvirt\t9.0.0\nqemu\t7.2.19\nnow\t1795876627\nsynchronized\tyes\nimage\tthere\tregular file\n\
        bridge\tbr_eth0\tyes\nbridge\tbr_data\tno\nfree\t/usr\t1000000\n\
        file\t/usr/bin/zsha\t755\tabc\nunit\tconsul.service\tnot-found\tinactive\t\n\
        consul\t\t\nconsul-runs\tno\nconsul-user\tno\nfirewall\tnftables\n\
        installed\teyJjbHVzdGVyIjoicHJvZCIsIm5vZGUiOiJuZnMtMSIsImNvbnN1bCI6dHJ1ZSwiY29uc3VsUHJvZ3JhbSI6dHJ1ZSwiY29uc3VsVXNlciI6dHJ1ZSwiYWNsIjp0cnVlLCJtYXNrZWRMaWJ2aXJ0R3Vlc3RzIjpmYWxzZX0=\n\
        end\n";

    #[test]
    fn an_answer_becomes_types() {
        let facts = parse(ANSWER).unwrap();
        assert_eq!((facts.systemd, facts.libvirt.as_deref()), (252, Some("9.0.0")));
        assert_eq!(facts.image, Some(Image::There));
        assert_eq!((facts.bridges["br_eth0"], facts.bridges["br_data"]), (Link::Yes, Link::No));
        assert_eq!(facts.files["/usr/bin/zsha"].mode, "755");
        assert!(!facts.units["consul.service"].exists());
        assert_eq!((facts.consul.clone(), facts.firewalls.clone()), (None, vec![Firewall::Nftables]));
        let installed = facts.installed.unwrap();
        assert!(installed.consul && !installed.masked_libvirt_guests, "{installed:?}");
    }

    #[test]
    fn what_libvirt_has_by_the_vms_name_is_told() {
        let of = |line: &str| parse(&ANSWER.replace("end\n", &format!("{line}end\n"))).unwrap().domain;
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("domain-unknown\tno answer\n"), Err("no answer".to_owned()));
        let fact = |defined, autostart| Ok(Some(DomainFact { uuid: "u-1".into(), defined, autostart }));
        assert_eq!(of("domain\tu-1\tyes\tenable\n"), fact(true, true));
        assert_eq!(of("domain\tu-1\tno\tdisable\n"), fact(false, false));
    }

    #[test]
    fn who_has_the_vms_disk_is_told() {
        let of = |line: &str| parse(&ANSWER.replace("end\n", &format!("{line}end\n"))).unwrap().disk_users;
        assert_eq!(of(""), []);
        let told = of(
            "disk-process\t17\tqemu-kvm\t\ndisk-domain\told vm\tshut off\ndisk-unknown\tdomain x: no answer\n",
        );
        let old = DiskUser::Domain { name: "old vm".into(), state: "shut off".into() };
        let process = DiskUser::Process { pid: "17".into(), program: "qemu-kvm".into(), uuid: String::new() };
        assert_eq!(told, [process, old, DiskUser::Unknown("domain x: no answer".into())]);
    }

    /// The very script, on this machine: what has the image, by an open file or by its words, is told. What only copies it is
    /// not, nor is what has another of which the name begins or ends like it.
    #[test]
    fn a_process_that_has_the_image_is_seen_whatever_it_is_called_by() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::{Child, Command, Stdio};
        let dir = tempfile::tempdir().unwrap();
        let (image, link) = (dir.path().join("mnvm.img"), dir.path().join("other.img"));
        std::fs::write(&image, "x").unwrap();
        std::fs::hard_link(&image, &link).unwrap();
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        // A shell by that name, which waits for a line that never comes.
        let run = |program: &str, open: &std::path::Path, word: &str| -> Child {
            let program = dir.path().join(program);
            std::fs::copy(&shell, &program).unwrap();
            let mut command = Command::new(program);
            command.args(["-c", "exec 3<\"$OPEN\"; echo; read line", "vm", word]).env("OPEN", open);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
            child
        };
        let (nothing, path) = (std::path::Path::new("/dev/null"), image.display().to_string());
        let mut users = [
            run("qemu-system-x86_64", &image, ""),
            run("kvm", &link, ""),
            run("qemu-kvm", nothing, &format!("file={path},format=raw")),
            run("qemu-nbd", nothing, &format!("{{\"driver\":\"file\",\"filename\":\"{path}\"}}")),
        ];
        let mut others = [
            run("qemu-img", &image, ""),
            run("qemu-io", nothing, &format!("file={path}.old")),
            run("qemu-storage-daemon", nothing, &format!("file=/backup{path}")),
            run("sleepy", &image, &path),
        ];
        let mut script = script(&super::super::testing::document());
        script.insert_str(script.find("say()").unwrap(), &format!("IMAGE='{path}' DISK='{path}'\n"));
        let mut reader = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let said = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
        let expected: std::collections::BTreeSet<_> =
            users.iter().map(|user| user.id().to_string()).collect();
        for process in users.iter_mut().chain(&mut others) {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let pid = |line: &str| Some(line.strip_prefix("disk-process\t")?.split('\t').next()?.to_owned());
        assert_eq!(
            said.lines().filter_map(pid).collect::<std::collections::BTreeSet<_>>(),
            expected,
            "{said}"
        );
    }

    /// What libvirt keeps on the disk is read where it does not list its domains: also a definition with another path to the image.
    #[test]
    fn a_definition_with_the_image_is_seen_where_libvirt_does_not_answer() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("mnvm.img"), "x").unwrap();
        std::fs::write(at("another.img"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), at("share")).unwrap();
        let defined = |file: &str, name: &str, image: &str| {
            let text = format!("<domain type='kvm'>\n<name>{name}</name><source file=\"{image}\"/></domain>");
            std::fs::write(at(file), text).unwrap();
        };
        defined("same.xml", "old vm", &at("mnvm.img"));
        defined("linked.xml", "linked", &at("share/mnvm.img"));
        defined("else.xml", "else", &at("another.img"));
        defined("ours.xml", "mnvm", &at("mnvm.img"));
        std::fs::write(at("broken.xml"), "").unwrap();
        let mut script = script(&super::super::testing::document());
        script
            .insert_str(script.find("say()").unwrap(), &format!("IMAGE='{0}' DISK='{0}'\n", at("mnvm.img")));
        script.push_str(&format!(
            "definitions '{}' 'does not answer'\ndefinitions '{}'\n",
            dir.path().display(),
            at("nowhere")
        ));
        let mut reader = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let said = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
        let after = said.split("\nend\n").nth(1).unwrap();
        let read =
            parse(&format!("{}{after}end\n", ANSWER.strip_suffix("end\n").unwrap())).unwrap().disk_users;
        let domain = |name: &str, file: &str| DiskUser::Domain {
            name: name.to_owned(),
            state: format!("by {}, as libvirt does not answer", at(file)),
        };
        let broken = format!("{} cannot be read, or is no definition of a domain", at("broken.xml"));
        assert_eq!(
            read,
            [DiskUser::Unknown(broken), domain("linked", "linked.xml"), domain("old vm", "same.xml")]
        );
    }

    #[test]
    fn an_answer_that_breaks_off_is_not_taken_for_one_that_lacks_things() {
        let cut = ANSWER.strip_suffix("end\n").unwrap();
        assert_eq!(parse(cut), Err(Unread::Lacks("end")));
        assert_eq!(parse(""), Err(Unread::Lacks("end")));
    }

    #[test]
    fn a_share_that_does_not_answer_is_not_a_missing_image() {
        let hung = ANSWER.replace("image\tthere\tregular file", "image\tunknown\tno answer within 10 s");
        assert_eq!(parse(&hung).unwrap().image, Some(Image::Unknown("no answer within 10 s".into())));
        let missing = ANSWER.replace("image\tthere\tregular file", "image\tmissing");
        assert_eq!(parse(&missing).unwrap().image, Some(Image::Missing));
    }

    #[test]
    fn what_is_said_of_ceph_is_told_apart() {
        let of = |line: &str| parse(&ANSWER.replace("end\n", &format!("{line}\nend\n"))).unwrap().ceph;
        assert_eq!(parse(ANSWER).unwrap().ceph, None);
        let all = of("ceph\tyes\tyes\tthere\tabc\tfit\tdef").unwrap();
        assert_eq!((all.driver, all.no_admin, all.image), (Some(true), None, Some(Image::There)));
        assert_eq!((all.key.as_deref(), all.held.as_deref()), (Some("abc"), Some("def")));
        let none = of("ceph\t\tthere is no program ceph\t\t\t\t").unwrap();
        assert_eq!((none.driver, none.image, none.key, none.held), (None, None, None, None));
        assert_eq!(none.no_admin.as_deref(), Some("there is no program ceph"));
        let unlocked = of("ceph\tyes\tyes\tunlocked\tabc\tothers\t").unwrap();
        assert_eq!((unlocked.image, unlocked.locks, unlocked.caps_fit), (Some(Image::There), false, false));
        let hung = of("ceph\tno\tyes\tno answer within 10 s\t\t\t").unwrap();
        assert_eq!(hung.image, Some(Image::Unknown("no answer within 10 s".into())));
    }
}
