//! Tests which processes of a real process table count as copies of the VM.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zsha_crds::NodeName;

use super::*;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::simulated::SimulatedHosts;

mod strangers;

/// A real process that stands for a QEMU: it lives until it is killed, or this is dropped.
#[derive(Debug)]
pub(in crate::keeper) struct Impostor {
    child: Child,
    handle: OwnedFd,
}

impl Impostor {
    pub(in crate::keeper) fn called(name: &str, arguments: &[&str]) -> Self {
        Self::by(&mut Command::new("/bin/sh"), name, arguments)
    }

    /// Starts one as any user may. Needs root.
    pub(in crate::keeper) fn of_user(user: u32, uuid: Uuid) -> Self {
        let arguments = ["-uuid", &uuid.to_string()];
        Self::by(Command::new("/bin/sh").uid(user).gid(user), "qemu-x", &arguments)
    }

    fn by(command: &mut Command, name: &str, arguments: &[&str]) -> Self {
        let mut child = command
            .arg0(name)
            .args(["-c", "echo; read -r forever", "it"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // In the middle of an exec a process has no command line; it has one when it speaks. One that is killed
        // before that, by a keeper's thread that runs already, says nothing.
        let _ends_or_speaks = child.stdout.take().unwrap().read(&mut [0]).unwrap();
        let handle = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        Self { child, handle }
    }

    pub(in crate::keeper) fn qemu(uuid: Uuid) -> Self {
        Self::called("/usr/bin/qemu-system-x86_64", &["-m", "512", "-uuid", &uuid.to_string(), "-S"])
    }

    pub(in crate::keeper) fn number(&self) -> u64 {
        u64::from(self.child.id())
    }

    pub(in crate::keeper) fn dies_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    pub(in crate::keeper) fn lives(&self) -> bool {
        !self.dies_within(Duration::ZERO)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(copies: &[VmCopy]) -> Vec<u64> {
    copies.iter().map(|copy| copy.process).collect()
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_qemu_is_a_copy_by_name_and_exact_arguments_only() {
    let uuid = Uuid::new_v4();
    let text = uuid.to_string();
    let mine = Impostor::qemu(uuid);
    let loud = Impostor::called("qemu-kvm", &["--uuid", &text.to_uppercase()]);
    let others = [
        Impostor::qemu(Uuid::new_v4()),
        Impostor::called("vim", &["-uuid", &text]),
        Impostor::called("qemu-system-x86_64", &[&format!("-uuid {text}")]),
        Impostor::called("qemu-system-x86_64", &["-uuid", "--", &text]),
        Impostor::called("qemu-system-x86_64", &[&text, "-uuid"]),
    ];
    let copies = ProcCopies::new(uuid);
    let found = copies.alive().unwrap();
    let mut seen = numbers(&found);
    seen.sort_unstable();
    let mut expected = vec![mine.number(), loud.number()];
    expected.sort_unstable();
    assert_eq!(seen, expected);

    found.iter().for_each(|copy| copies.kill(copy).unwrap());
    assert!(mine.dies_within(SOON) && loud.dies_within(SOON));
    // They are zombies now, their parent has not asked for them yet.
    assert_eq!(numbers(&copies.alive().unwrap()), Vec::<u64>::new());
    assert!(others.iter().all(Impostor::lives));
    found.iter().for_each(|copy| copies.kill(copy).unwrap());
}

/// The command line of a stranger's process is read only at its beginning.
#[test]
fn the_command_line_of_one_that_could_run_the_vm_is_read_to_its_end() {
    let uuid = Uuid::new_v4();
    let long = "x".repeat(100 << 10);
    let qemu = Impostor::called("qemu-system-x86_64", &[&long, "-uuid", &uuid.to_string()]);
    assert_eq!(numbers(&ProcCopies::new(uuid).alive().unwrap()), [qemu.number()]);
}

#[test]
fn a_copy_whose_process_number_is_gone_is_killed_again_without_harm() {
    let uuid = Uuid::new_v4();
    let copies = ProcCopies::new(uuid);
    let qemu = Impostor::qemu(uuid);
    let found = copies.alive().unwrap();
    assert_eq!(numbers(&found), vec![qemu.number()]);
    drop(qemu);
    copies.kill(&found[0]).unwrap();
}

fn within(proc: &Path, uuid: Uuid) -> ProcCopies {
    ProcCopies { proc: proc.to_owned(), ..ProcCopies::new(uuid) }
}

/// A /proc with one process, this very one, as the files say.
fn proc_with(own_files: &[(&str, Vec<u8>)], uuid: Uuid) -> (tempfile::TempDir, ProcCopies) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("1")).unwrap();
    fs::write(directory.path().join("1/cmdline"), "init\0").unwrap();
    let own = directory.path().join(std::process::id().to_string());
    for (name, content) in own_files {
        let file = own.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let copies = within(directory.path(), uuid);
    (directory, copies)
}

#[test]
fn a_dead_leader_is_a_copy_as_long_as_another_of_its_threads_lives() {
    let uuid = Uuid::new_v4();
    let command_line = format!("qemu-system-x86_64\0-uuid\0{uuid}\0").into_bytes();
    let leader = [("cmdline", Vec::new()), ("task/7/cmdline", Vec::new())];
    let (_dead, copies) = proc_with(&leader, uuid);
    assert_eq!(numbers(&copies.alive().unwrap()), Vec::<u64>::new());
    let [own, thread] = leader;
    let (_headless, copies) = proc_with(&[own, thread, ("task/8/cmdline", command_line)], uuid);
    assert_eq!(numbers(&copies.alive().unwrap()), vec![u64::from(std::process::id())]);
}

#[test]
fn a_process_table_that_is_missing_or_hides_processes_is_an_error_and_not_empty() {
    let directory = tempfile::tempdir().unwrap();
    let uuid = Uuid::new_v4();
    assert!(within(directory.path(), uuid).alive().is_err());
    assert!(within(&directory.path().join("none"), uuid).alive().is_err());
}

#[test]
fn a_process_that_vanished_while_it_was_looked_at_is_not_there() {
    let (directory, copies) = proc_with(&[], Uuid::new_v4());
    fs::create_dir(directory.path().join("77")).unwrap();
    assert_eq!(numbers(&copies.alive().unwrap()), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn simulated_copies_are_those_of_their_node_and_die_when_killed() {
    let names: [NodeName; 2] = [NodeName::new("a").unwrap(), NodeName::new("b").unwrap()];
    let hosts = SimulatedHosts::new(zsha_crds::VmId {
        name: zsha_crds::VmName::management(),
        uuid: Uuid::from_u128(1),
    });
    hosts.set_image_locks(false);
    for name in &names {
        let hypervisor = hosts.hypervisor(name);
        hypervisor.start_paused(&crate::keeper::renew::tests::domain()).await.unwrap();
    }
    let copies = SimulatedCopies::new(Arc::clone(&hosts), names[0].clone());
    let found = copies.alive().unwrap();
    assert_eq!(found.len(), 1);
    copies.kill(&found[0]).unwrap();
    assert_eq!(copies.alive().unwrap().len(), 0);
    assert_eq!(hosts.copies_on(&names[1]).len(), 1);
}

/// A process in the middle of an exec for so many looks: for whom it is clear in the end, and after how many.
fn is_waited_for(patience: Patience, looks: u32) -> (bool, u32) {
    let mut looked = 0;
    let left = patience.wait(vec![7], |_| {
        looked += 1;
        Ok(looked < looks)
    });
    (left.unwrap().is_empty(), looked)
}

#[test]
fn a_call_waits_longer_for_an_exec_than_the_thread_that_kills_and_neither_waits_for_ever() {
    // The machine may be busy: here only the looks are counted.
    let counted = |patience: Patience| Patience { within: Duration::from_secs(3_600), ..patience };
    let (kill, call) = (counted(Patience::OF_A_KILL), counted(Patience::OF_A_CALL));
    assert_eq!((is_waited_for(kill, 20), is_waited_for(kill, 21)), ((true, 20), (false, 20)));
    assert_eq!((is_waited_for(call, 21), is_waited_for(call, u32::MAX)), ((true, 21), (false, 1_000)));
    let over = Patience { within: Duration::ZERO, ..call };
    assert!(is_waited_for(over, u32::MAX).1 <= 1, "nor longer than it may take");
    assert!(call.wait(vec![7], |_| Err(io::Error::other("no table"))).is_err());
}
