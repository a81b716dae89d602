//! What `/proc` says of one process: its command line and its program. A process that vanishes while it is looked at is
//! absent; any other error stays one.
//!
//! Never here: whether it is a copy of the VM.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use uuid::Uuid;

/// The length of a command line as it is logged; it may be megabytes.
const COMMAND_TOLD: usize = 60;

/// Takes a process that vanished while it was looked at for absent; any other error stays one.
pub(super) fn none_if_gone<T>(error: io::Error) -> io::Result<Option<T>> {
    if is_gone(&error) { Ok(None) } else { Err(error) }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Fills `buffer`; false if the process is not there any more.
pub(super) fn read_entry(path: &Path, buffer: &mut Vec<u8>, limit: u64) -> io::Result<bool> {
    buffer.clear();
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(buffer));
    match read {
        Ok(_) => Ok(true),
        Err(error) => none_if_gone::<()>(error).map(|_| false),
    }
}

/// True if a process without a command line has memory of its own all the same. A kernel thread, a zombie and a process
/// that is ending have none, and no program either.
pub(super) fn has_memory(process: &Path) -> bool {
    match fs::read_link(process.join("exe")) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::read_to_string(process.join("statm")).is_ok_and(|pages| !pages.starts_with("0 "))
        }
        Err(error) => !is_gone(&error),
    }
}

/// The first argument, as much of it as a person wants to read.
pub(super) fn called(command_line: &[u8]) -> String {
    let first = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
    let text: String = String::from_utf8_lossy(first).chars().take(COMMAND_TOLD).collect();
    text.replace(char::is_control, " ")
}

/// True if `-uuid` and this UUID stand side by side in a command line of zero-terminated arguments.
pub(super) fn names_vm(command_line: &[u8], uuid: &Uuid) -> bool {
    let arguments = || command_line.split(|byte| *byte == 0);
    arguments().zip(arguments().skip(1)).any(|(option, value)| {
        matches!(option, b"-uuid" | b"--uuid")
            && Uuid::try_parse_ascii(value).is_ok_and(|given| given == *uuid)
    })
}

pub(super) fn is_incoming(command_line: &[u8]) -> bool {
    command_line.split(|byte| *byte == 0).any(|argument| matches!(argument, b"-incoming" | b"--incoming"))
}

/// True for a QEMU, by the name it was called by or by its program. Either may have been chosen freely, hardly both.
pub(super) fn is_qemu(command_line: &[u8], process: &Path) -> bool {
    let called = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
    let called = String::from_utf8_lossy(called);
    names_qemu(Path::new(called.as_ref()))
        || fs::read_link(process.join("exe")).is_ok_and(|program| names_qemu(&program))
}

pub(super) fn names_qemu(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.contains("qemu") || name == "kvm"
}
