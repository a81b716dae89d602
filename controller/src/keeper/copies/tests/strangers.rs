//! Tests processes that call themselves a copy and are none, and copies that are hard to see.

use super::*;
use crate::keeper::unexpected;

const NOBODY: u32 = 65_534;

/// True if a process of this user that calls itself a QEMU of the VM is taken for a copy, where these users run QEMU.
/// Needs root.
fn is_copy(user: u32, runs_qemu: &[u32]) -> bool {
    let uuid = Uuid::new_v4();
    let process = Impostor::of_user(user, uuid);
    let users = Users::known_to_be(runs_qemu.iter().copied());
    let found = ProcCopies { users, ..ProcCopies::telling(uuid) }.alive().unwrap();
    assert!(process.lives());
    if let Some(copy) = found.first() {
        assert_eq!((copy.process, copy.user), (process.number(), Some(user)));
        let told = copy.to_string();
        let expected = format!("process {} of user {user} (qemu-x)", process.number());
        assert_eq!(told, expected);
        assert!(copy.started.is_some() && copy.certain);
    }
    !found.is_empty()
}

/// A stranger who comes to a quiet node is not ended by a keeper that has let its list of users grow old.
#[test]
fn the_list_of_users_is_kept_fresh_though_nobody_calls_himself_a_qemu_of_the_vm() {
    let copies = ProcCopies::telling(Uuid::new_v4());
    copies.users.becomes_due();
    assert!(copies.alive().unwrap().is_empty());
    assert!(copies.users.becomes_due().is_some(), "a scan that finds nobody reads it too");
    assert!(copies.silent().alive().unwrap().is_empty());
    assert!(copies.users.becomes_due().is_none(), "but the thread that kills makes no thread for it");
}

#[test]
fn an_impostor_of_a_user_who_could_not_run_the_vm_is_no_copy_and_any_other_is() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    assert!(!is_copy(NOBODY, &[0, 64_055]));
    assert!(is_copy(64_055, &[0, 64_055]), "of the user that runs QEMU");
    assert!(is_copy(0, &[0, 64_055]), "root's, started by hand");
    assert!(is_copy(NOBODY, &[0, NOBODY]), "where QEMU runs as nobody");
}

#[test]
fn while_nobody_knows_who_runs_qemu_everybody_counts() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let uuid = Uuid::new_v4();
    let _process = Impostor::of_user(NOBODY, uuid);
    assert_eq!(Users::default().that_count(), None, "nothing has been read");
    let copies = ProcCopies { users: Users::never_read(), ..ProcCopies::new(uuid) };
    assert_eq!(copies.alive().unwrap().len(), 1);
}

/// Otherwise the keeper would end the VM's own QEMU under a valid lease, if a stranger's process was there first.
#[test]
fn while_nobody_knows_who_runs_qemu_a_stranger_is_not_taken_for_the_vms_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let uuid = Uuid::new_v4();
    let (stranger, own) = (Impostor::of_user(NOBODY, uuid), Impostor::qemu(uuid));
    let copies = ProcCopies { users: Users::never_read(), ..ProcCopies::new(uuid) };
    let mut found = copies.alive().unwrap();
    let certain =
        |of: &Impostor| found.iter().find(|copy| copy.process == of.number()).map(|copy| copy.certain);
    assert_eq!((certain(&stranger), certain(&own)), (Some(false), Some(true)));
    // The kernel counts starts in hundredths of a second, and both may be of one.
    for copy in &mut found {
        copy.started = Some(if copy.process == stranger.number() { 1 } else { 2 });
    }
    assert_eq!(numbers(&unexpected::beside_the_own(&found)), Vec::<u64>::new());
}

/// The number of times that the process below puts another program in its place.
const EXECS: usize = 600;

#[test]
fn a_qemu_in_the_middle_of_an_exec_is_never_taken_for_none() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("qemu-system-x86_64");
    fs::copy("/bin/sh", &program).unwrap();
    let uuid = Uuid::new_v4();
    // It executes itself over and over, with the same arguments but for the count, and then waits to be killed.
    let script = "[ \"$1\" = 0 ] && { echo; read -r forever; }; exec \"$0\" -c \"$2\" \"$0\" $(($1 - 1)) \"$2\" -uuid \"$4\"";
    let mut child = Command::new(&program)
        .args(["-c", script])
        .arg(&program)
        .args([&EXECS.to_string(), script, "-uuid", &uuid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut end = child.stdout.take().unwrap();
    let copies = ProcCopies::new(uuid);
    let (mut looks, mut missed, mut unclear) = (0, 0, 0);
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let waiting = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let _ends_or_speaks = end.read(&mut [0]).unwrap();
            over.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    });
    while !over.load(std::sync::atomic::Ordering::SeqCst) {
        looks += 1;
        match copies.alive() {
            Ok(found) => missed += usize::from(found.is_empty()),
            Err(_) => unclear += 1,
        }
    }
    waiting.join().unwrap();
    println!("{looks} looks during {EXECS} execs: missed in {missed}, unclear in {unclear}");
    assert_eq!(copies.alive().unwrap().len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(looks > 10);
    assert_eq!(missed, 0, "of {looks} looks");
}

#[test]
fn a_qemu_without_a_command_line_is_unknown_and_any_other_program_without_one_is_none() {
    let uuid = Uuid::new_v4();
    for (program, is_known) in [("/usr/bin/qemu-system-x86_64", false), ("/usr/bin/vim", true)] {
        let (directory, copies) = proc_with(&[("cmdline", Vec::new())], uuid);
        let own = directory.path().join(std::process::id().to_string());
        std::os::unix::fs::symlink(program, own.join("exe")).unwrap();
        assert_eq!(copies.alive().map(|found| found.len()).ok(), is_known.then_some(0), "{program}");
    }
}
