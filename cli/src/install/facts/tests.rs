//! What is made of a node's answer, and the very script on this machine.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

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
    let mut script = script(&crate::install::testing::document(), &[8500]);
    script.insert_str(script.find("say()").unwrap(), &format!("IMAGE='{path}' DISK='{path}'\n"));
    let mut reader = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    reader.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let said = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
    let expected: std::collections::BTreeSet<_> = users.iter().map(|user| user.id().to_string()).collect();
    for process in users.iter_mut().chain(&mut others) {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let pid = |line: &str| Some(line.strip_prefix("disk-process\t")?.split('\t').next()?.to_owned());
    assert_eq!(said.lines().filter_map(pid).collect::<std::collections::BTreeSet<_>>(), expected, "{said}");
}

/// The very script, on this machine, in a folder that QEMU's user may not enter, with a port that this process has.
#[test]
fn what_a_host_is_able_to_do_is_asked_of_the_host_itself() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mnvm.img").display().to_string();
    std::fs::write(&path, "x").unwrap();
    let mode = |mode| std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
    mode(0o700);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = || {
        let mut script = script(&crate::install::testing::document(), &[port, 1]);
        script
            .insert_str(script.find("say()").unwrap(), &format!("IMAGE='{path}' DISK='{path}' BRIDGES=lo\n"));
        let mut reader = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let said = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
        parse(&said).unwrap()
    };
    let Facts { abilities, bridges, .. } = read();
    let cpu = abilities.cpu.unwrap();
    assert!(cpu.flags.contains("sse2"), "{cpu:?}");
    assert!(abilities.cpus > Some(0) && abilities.memory_kib > Some(1 << 18), "a host has both");
    assert!(abilities.kvm.is_some() && abilities.boot_id.is_some());
    assert_eq!((bridges["lo"], abilities.mtus["lo"]), (Link::NoBridge, 65_536));
    let [taken] = &*abilities.listeners.unwrap() else { panic!("one port of the two is taken") };
    assert_eq!((taken.port, taken.at.as_str()), (port, &*format!("127.0.0.1:{port}")));
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if is_root && Command::new("id").args(["-u", "libvirt-qemu"]).output().unwrap().status.success() {
        let [Barrier::Folder { user, folder, .. }] = &*abilities.barriers else {
            panic!("{:?}", abilities.barriers)
        };
        assert_eq!((user.as_str(), folder.as_str()), ("libvirt-qemu", dir.path().to_str().unwrap()));
    }
    mode(0o755);
    assert_eq!(read().abilities.barriers, []);
}

/// A directory of definitions as libvirt keeps them, and what the very script says of them for an image in it.
struct Kept(tempfile::TempDir);

impl Kept {
    fn new() -> Self {
        let kept = Self(tempfile::tempdir().unwrap());
        std::fs::write(kept.at("mnvm.img"), "x").unwrap();
        kept
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn define(&self, file: &str, name: &str, image: &str) {
        let text = format!("<domain type='kvm'>\n<name>{name}</name><source file=\"{image}\"/></domain>");
        std::fs::write(self.at(file), text).unwrap();
    }

    /// Finds who has the image, where libvirt does not answer.
    fn read(&self) -> Vec<DiskUser> {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut script = script(&crate::install::testing::document(), &[8500]);
        let image = self.at("mnvm.img");
        script.insert_str(script.find("say()").unwrap(), &format!("IMAGE='{image}' DISK='{image}'\n"));
        let (here, nowhere) = (self.0.path().display(), self.at("nowhere"));
        script.push_str(&format!("definitions '{here}' 'does not answer'\ndefinitions '{nowhere}'\n"));
        let mut reader = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        reader.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let said = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
        let after = said.split("\nend\n").nth(1).unwrap();
        parse(&format!("{}{after}end\n", ANSWER.strip_suffix("end\n").unwrap())).unwrap().disk_users
    }
}

/// The definitions that libvirt keeps on the disk are read where it lists no domains: also one with another path to the
/// image.
#[test]
fn a_definition_with_the_image_is_seen_where_libvirt_does_not_answer() {
    let kept = Kept::new();
    std::fs::write(kept.at("another.img"), "x").unwrap();
    std::os::unix::fs::symlink(kept.0.path(), kept.at("share")).unwrap();
    kept.define("same.xml", "old vm", &kept.at("mnvm.img"));
    kept.define("linked.xml", "linked", &kept.at("share/mnvm.img"));
    kept.define("else.xml", "else", &kept.at("another.img"));
    kept.define("ours.xml", "mnvm", &kept.at("mnvm.img"));
    std::fs::write(kept.at("broken.xml"), "").unwrap();
    let domain = |name: &str, file: &str| DiskUser::Domain {
        name: name.to_owned(),
        state: format!("by {}, as libvirt does not answer", kept.at(file)),
    };
    let broken = format!("{} cannot be read, or is no definition of a domain", kept.at("broken.xml"));
    assert_eq!(
        kept.read(),
        [DiskUser::Unknown(broken), domain("linked", "linked.xml"), domain("old vm", "same.xml")]
    );
}

/// A path may lead to the image or nowhere. One that leads nowhere is not the image.
#[test]
fn a_path_of_a_definition_that_cannot_be_looked_at_is_not_taken_for_another() {
    let kept = Kept::new();
    std::os::unix::fs::symlink(kept.at("loop"), kept.at("loop")).unwrap();
    kept.define("gone.xml", "gone", &kept.at("gone.img"));
    kept.define("below-a-file.xml", "below a file", &kept.at("mnvm.img/below"));
    assert_eq!(kept.read(), []);
    kept.define("looped.xml", "looped", &kept.at("loop"));
    let read = kept.read();
    let [DiskUser::Unknown(why)] = read.as_slice() else { panic!("{read:?}") };
    assert!(why.starts_with(&format!("a definition of a domain names {}: ", kept.at("loop"))), "{why}");
    assert!(why.contains("Too many levels of symbolic links"), "{why}");
}

#[test]
fn whom_consul_counts_as_a_server_is_told_or_not_known() {
    let of = |said: &str| {
        let line = format!("consul-peers\t{}\nend\n", BASE64_STANDARD.encode(said));
        parse(&ANSWER.replace("end\n", &line)).unwrap().peers
    };
    assert_eq!(parse(ANSWER).unwrap().peers, None);
    let peer = Peer { host: "10.0.0.1".into(), port: "8300".into(), votes: true };
    assert_eq!(
        of("Node ID Address State Voter RaftProtocol\nn1 id 10.0.0.1:8300 leader true 3\n"),
        Some(vec![peer])
    );
    assert_eq!(of("no list at all"), None);
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
