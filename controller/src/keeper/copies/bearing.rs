//! Reads what the kernel says of a process that calls itself a QEMU of the VM. Any user may give a process that name
//! and those arguments, and not every user could run the VM.
//!
//! Everything is pure but for [`Bearing::of`], which reads /proc and nothing else. A value that cannot be read clears
//! no process: then the process could run the VM, but not for certain.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::io::Errno;

use super::entry::{is_gone, names_qemu};

/// The facts about a process apart from its command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bearing {
    /// The start of the process, in clock ticks since boot: it tells a process from a later one of the same number.
    /// None: not known.
    pub(super) started: Option<u64>,
    /// The real, effective, saved and file system user, as this user namespace numbers them. None: not known.
    pub(super) users: Option<[u32; 4]>,
    /// True if the process has, or can take on, any power beyond its user's on this host. In a user namespace of its
    /// own a process has all powers, and none over what is outside. None, as below: not known.
    has_powers: Option<bool>,
    /// True if the process is where libvirt, and no unprivileged user, puts processes.
    of_libvirt: Option<bool>,
    /// True if its program is an emulator, by the file that it is. Any user may run a program with powers that are not
    /// his own (`su`, `ping`), under any name.
    emulates: Option<bool>,
}

impl Bearing {
    pub(super) fn of(process: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let status = text("status");
        let space = |of: &Path| fs::read_link(of.join("ns/user")).ok();
        let apart = space(process).zip(space(Path::new("/proc/self"))).map(|(its, ours)| its != ours);
        Self {
            started: started(&text("stat")),
            users: users(&status),
            has_powers: match apart {
                Some(true) => Some(false),
                Some(false) => has_powers(&status),
                // It has them somewhere, and nobody knows where.
                None => has_powers(&status).filter(|has| !has),
            },
            of_libvirt: match fs::read_to_string(process.join("cgroup")) {
                Ok(groups) => Some(is_of_libvirt(&groups)),
                // A path of that length only a user makes who may name groups; libvirt's are short.
                Err(error) if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) => Some(false),
                Err(error) => is_gone(&error).then_some(false),
            },
            emulates: match fs::read_link(process.join("exe")) {
                Ok(program) => Some(is_emulator(&program)),
                Err(error) => is_gone(&error).then_some(false),
            },
        }
    }

    /// True if the process could run the VM, as far as is known. `users` are those that may; None: not known.
    pub(super) fn could_run_vm(&self, users: Option<&BTreeSet<u32>>) -> bool {
        self.runs_vm_if(users, true)
    }

    /// True if the process could run the VM by what is known alone: whatever could not be read may turn out either way.
    pub(super) fn certainly_could_run_vm(&self, users: Option<&BTreeSet<u32>>) -> bool {
        self.runs_vm_if(users, false)
    }

    /// The same, if everything that is not known is taken to be `unknown`.
    fn runs_vm_if(&self, users: Option<&BTreeSet<u32>>, unknown: bool) -> bool {
        let known = users.zip(self.users);
        let any_may = known.map(|(users, its)| its.iter().any(|user| users.contains(user)));
        let real_may = known.map(|(users, [real, ..])| users.contains(&real));
        let [any_may, real_may, has_powers, of_libvirt, emulates] =
            [any_may, real_may, self.has_powers, self.of_libvirt, self.emulates]
                .map(|said| said.unwrap_or(unknown));
        let has_means = has_powers || any_may;
        // Started by one of these, or by a stranger from a file that lends him their powers.
        let is_theirs = real_may || emulates;
        of_libvirt || has_means && is_theirs
    }
}

/// True if a program is called as distributions call the emulator itself. The helpers that lie beside it, some with
/// powers of their own, run no guest.
fn is_emulator(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // Of one that was replaced on the disk since, the kernel says so behind the name.
    (names_qemu(program) || name.starts_with("kvm ")) && !name.contains("helper")
}

/// The start of a process, field 22 of `stat`. The name, field 2, may hold anything, brackets too.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn users(status: &str) -> Option<[u32; 4]> {
    let numbers = field(status, "Uid:")?.split_ascii_whitespace().map(str::parse);
    numbers.collect::<Result<Vec<u32>, _>>().ok()?.try_into().ok()
}

/// True if the process has powers. None: it cannot be read.
fn has_powers(status: &str) -> Option<bool> {
    let set = |name: &str| u64::from_str_radix(field(status, name)?.trim(), 16).ok();
    match (set("CapPrm:"), set("CapEff:")) {
        (Some(0), Some(0)) => Some(false),
        (Some(1..), _) | (_, Some(1..)) => Some(true),
        (None, _) | (_, None) => None,
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// True if the process is in a group of libvirt's, in any hierarchy. A group below `user.slice` has its name from its
/// user.
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
            of_libvirt: Some(is_of_libvirt(groups)),
            emulates: Some(true),
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
        assert!(!Bearing { emulates: Some(false), ..of(&su, groups) }.could_run_vm(Some(&may)));
        assert!(of(&su, groups).could_run_vm(Some(&may)));
        let roots = STATUS.replace("65534", "0");
        assert!(
            Bearing { emulates: Some(false), ..of(&roots, groups) }.certainly_could_run_vm(Some(&may)),
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
        // All is known of these, so whoever could, certainly could.
        let could = |bearing: Bearing| {
            let could = bearing.could_run_vm(Some(&may));
            assert_eq!(bearing.certainly_could_run_vm(Some(&may)), could, "{bearing:?}");
            could
        };
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
    fn what_cannot_be_told_could_be_a_copy_and_is_none_for_certain() {
        let may = BTreeSet::from([0]);
        let unnamed = Bearing { emulates: Some(false), ..of("", "") };
        for (bearing, may, why) in [
            (Bearing::default(), Some(&may), "nothing is known"),
            (unnamed, Some(&may), "nobody knows whose it is"),
            (of(STATUS, ""), None, "nobody knows who runs QEMU"),
            (of("Uid:\t65534\t65534\n", ""), Some(&may), "nor all of its users"),
            (of("Uid:\t65534\t65534\t65534\t65534\n", ""), Some(&may), "no word of powers"),
            (Bearing { of_libvirt: None, ..of(STATUS, "") }, Some(&may), "nobody knows where it is"),
            (Bearing::of(Path::new("/nonexistent")), Some(&may), "it is gone"),
        ] {
            assert!(bearing.could_run_vm(may), "{why}");
            assert!(!bearing.certainly_could_run_vm(may), "{why}");
        }
    }

    #[test]
    fn what_libvirt_has_put_in_its_place_is_a_copy_for_certain_though_nobody_knows_who_runs_qemu() {
        let place = "0::/machine.slice/machine-qemu\\x2d1\\x2dmnvm.scope/libvirt/emulator\n";
        assert!(of(STATUS, place).certainly_could_run_vm(None));
        assert!(of("", place).certainly_could_run_vm(None), "nor whose it is");
        let powerful = STATUS.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000002");
        assert!(of(&powerful, "").certainly_could_run_vm(None), "an emulator with powers");
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
