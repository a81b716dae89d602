//! What the kernel says of a process that calls itself a QEMU of the VM: any user may give a process that name and those
//! arguments, and not everybody could run the VM.
//!
//! Pure but for [`Bearing::of`], which reads /proc and nothing else. What cannot be read speaks for nobody's innocence.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::io::Errno;

use super::{is_gone, names_qemu};

/// A process apart from its command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bearing {
    /// In clock ticks since boot: tells a process from a later one of the same number. None: not known.
    pub(super) started: Option<u64>,
    /// Real, effective, saved, and for files, as this user namespace numbers them. None: not known.
    pub(super) users: Option<[u32; 4]>,
    /// Whether it has, or can take on, any power beyond its user's on this host. In a user namespace of its own a process has
    /// all of them, and none over what is outside.
    has_powers: bool,
    /// Whether it is where libvirt, and no unprivileged user, puts processes.
    of_libvirt: bool,
    /// Whether its program is an emulator, by the file that it is. Any user may run a program with powers that are not his
    /// (`su`, `ping`), under any name.
    emulates: bool,
}

impl Bearing {
    pub(super) fn of(process: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let status = text("status");
        let space = |of: &Path| fs::read_link(of.join("ns/user")).ok();
        let apart = space(process).zip(space(Path::new("/proc/self"))).is_some_and(|(its, ours)| its != ours);
        Self {
            started: started(&text("stat")),
            users: users(&status),
            has_powers: !apart && has_powers(&status),
            of_libvirt: match fs::read_to_string(process.join("cgroup")) {
                Ok(groups) => is_of_libvirt(&groups),
                // A path of that length only a user makes who may name groups; libvirt's are short.
                Err(error) => {
                    !is_gone(&error) && error.raw_os_error() != Some(Errno::NAMETOOLONG.raw_os_error())
                }
            },
            emulates: match fs::read_link(process.join("exe")) {
                Ok(program) => is_emulator(&program),
                Err(error) => !is_gone(&error),
            },
        }
    }

    /// Whether it could run the VM. `users`: those that may; None: not known.
    pub(super) fn could_run_vm(&self, users: Option<&BTreeSet<u32>>) -> bool {
        match (users, self.users) {
            (Some(users), Some(its)) => {
                let has_means = self.has_powers || its.iter().any(|user| users.contains(user));
                // Started by one of these, or by a stranger from a file that lends him their powers.
                let is_theirs = users.contains(&its[0]) || self.emulates;
                self.of_libvirt || has_means && is_theirs
            }
            (None, _) | (_, None) => true,
        }
    }
}

/// As distributions call the emulator itself; the helpers that lie beside it, some with powers of their own, run no guest.
fn is_emulator(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // Of one that was replaced on the disk since, the kernel says so behind the name.
    (names_qemu(program) || name.starts_with("kvm ")) && !name.contains("helper")
}

/// Field 22 of `stat`. The name, field 2, may hold anything, brackets too.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn users(status: &str) -> Option<[u32; 4]> {
    let numbers = field(status, "Uid:")?.split_ascii_whitespace().map(str::parse);
    numbers.collect::<Result<Vec<u32>, _>>().ok()?.try_into().ok()
}

/// Not to be read is to have some.
fn has_powers(status: &str) -> bool {
    ["CapPrm:", "CapEff:"].iter().any(|name| {
        field(status, name)
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .is_none_or(|set| set != 0)
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// In any hierarchy. What is below `user.slice` its user has named.
fn is_of_libvirt(groups: &str) -> bool {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.map(|path| path.trim_start_matches('/')).any(|path| {
        !path.starts_with("user.slice")
            && path.split('/').any(|part| {
                matches!(part, "machine.slice" | "machine")
                    || part.starts_with("machine-qemu")
                    || part.ends_with(".libvirt-qemu")
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tqemu-x\nUid:\t65534\t65534\t65534\t65534\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\n";

    fn of(status: &str, groups: &str) -> Bearing {
        Bearing {
            started: Some(1),
            users: users(status),
            has_powers: has_powers(status),
            of_libvirt: is_of_libvirt(groups),
            emulates: true,
        }
    }

    /// `su` waits for a password as root; the user who runs it chose its name and arguments.
    #[test]
    fn a_program_that_lends_a_stranger_powers_could_run_the_vm_only_if_it_is_an_emulator() {
        let may = BTreeSet::from([0, 64_055]);
        let su = STATUS
            .replace("65534\t65534\t65534\t65534", "65534\t0\t0\t0")
            .replace("0000\nCapEff", "ffff\nCapEff");
        let groups = "0::/user.slice/user-65534.slice\n";
        assert!(!Bearing { emulates: false, ..of(&su, groups) }.could_run_vm(Some(&may)));
        assert!(of(&su, groups).could_run_vm(Some(&may)));
        let roots = STATUS.replace("65534", "0");
        assert!(
            Bearing { emulates: false, ..of(&roots, groups) }.could_run_vm(Some(&may)),
            "root chose its name"
        );
        for (program, is) in [
            ("/usr/bin/qemu-system-x86_64", true),
            ("/usr/libexec/qemu-kvm", true),
            ("/usr/bin/qemu-system-x86_64 (deleted)", true),
            ("/usr/lib/qemu/qemu-bridge-helper", false),
            ("/usr/bin/su", false),
        ] {
            assert_eq!(is_emulator(Path::new(program)), is, "{program}");
        }
    }

    #[test]
    fn a_process_could_run_the_vm_by_any_of_its_users_its_powers_or_its_place() {
        let may = BTreeSet::from([0, 64_055]);
        let could = |bearing: Bearing| bearing.could_run_vm(Some(&may));
        assert!(!could(of(STATUS, "0::/user.slice/user-1000.slice\n")));
        for users in
            ["0\t0\t0\t0", "65534\t65534\t0\t65534", "64055\t64055\t64055\t64055", "65534\t65534\t65534\t0"]
        {
            assert!(could(of(&STATUS.replace("65534\t65534\t65534\t65534", users), "0::/\n")), "{users}");
        }
        assert!(could(of(&STATUS.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000002"), "")));
        for place in [
            "0::/machine.slice/machine-qemu\\x2d1\\x2dmnvm.scope/libvirt/emulator\n",
            "4:cpu:/machine/qemu-1-mnvm.libvirt-qemu/emulator\n0::/\n",
            "0::/../../machine.slice/x\n",
        ] {
            assert!(could(of(STATUS, place)), "{place}");
        }
        let own = "0::/user.slice/user-65534.slice/user@65534.service/machine.slice/x\n";
        assert!(!could(of(STATUS, own)), "a name that a user has given");
    }

    #[test]
    fn what_cannot_be_told_could_be_a_copy() {
        let may = BTreeSet::from([0]);
        assert!(Bearing::default().could_run_vm(Some(&may)));
        let unnamed = Bearing { emulates: false, ..of("", "") };
        assert!(unnamed.could_run_vm(Some(&may)), "nobody knows whose it is");
        assert!(of(STATUS, "").could_run_vm(None), "nobody knows who runs QEMU");
        assert!(of("Uid:\t65534\t65534\n", "").could_run_vm(Some(&may)));
        assert!(of("Uid:\t65534\t65534\t65534\t65534\n", "").could_run_vm(Some(&may)), "no word of powers");
        assert!(Bearing::of(Path::new("/nonexistent")).could_run_vm(Some(&may)));
    }

    #[test]
    fn a_start_is_read_whatever_the_name_is() {
        let after = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99";
        assert_eq!(started(&format!("7 (a) b) ({after}) {after}")), Some(4711));
        assert_eq!(started(""), None);
        let own = Bearing::of(Path::new("/proc/self"));
        assert!(own.started.is_some() && own.users.is_some(), "{own:?}");
    }
}
