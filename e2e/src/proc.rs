//! Reads what the real host's /proc says of processes. It sees those of every host of the lab, whatever namespace they
//! are in, and asks neither the product nor libvirt.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// `PF_EXITING` of the kernel's flags word: past this point a process executes no guest any more.
const PF_EXITING: u32 = 0x4;

/// One process, as its `stat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub pid: i32,
    /// First 15 bytes of the program's name.
    pub name: String,
    pub state: char,
    pub flags: u32,
    pub cpu_ticks: u64,
    /// The start in clock ticks since boot: it tells a process from a later one with the same pid.
    pub started: u64,
}

impl Process {
    pub(crate) fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let name = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?.to_owned();
        // proc(5) counts from 1 and `state` is field 3.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            pid,
            name,
            state: fields.first()?.chars().next()?,
            flags: u32::try_from(number(9)?).ok()?,
            cpu_ticks: number(14)? + number(15)?,
            started: number(22)?,
        })
    }

    /// True if it is dead. A zombie, or a process that has begun to exit, runs nothing any more.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') || self.flags & PF_EXITING != 0
    }

    /// The command line; empty where the process is gone or has given up its memory.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

/// Every process for which `/proc` has a directory now.
pub(crate) fn all() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("list /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter_map(Process::read).collect())
}

/// The PID namespace of a process: equal for two processes exactly where they are on the same host of the lab.
pub(crate) fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194308 10 0 0 0 7 5 0 0 20 0 3 0 999 1 2";
        let process = Process::parse(42, stat).unwrap();
        assert_eq!((process.name.as_str(), process.state), ("a) b (c", 'S'));
        assert_eq!((process.cpu_ticks, process.started), (12, 999));
        assert!(process.is_dead(), "flags hold PF_EXITING");
    }

    #[test]
    fn this_very_process_is_alive_and_in_its_own_namespace() {
        let me = std::process::id() as i32;
        assert!(!Process::read(me).unwrap().is_dead());
        assert!(all().unwrap().iter().any(|process| process.pid == me));
        assert!(pid_namespace(me).is_some());
    }
}
