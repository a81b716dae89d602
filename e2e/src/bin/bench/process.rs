//! Reads from /proc when a process began and what it has used. It knows no lab.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::time::{ClockId, clock_gettime};

/// The kernel's USER_HZ: the unit of times in /proc, and 100 on every architecture that we run on.
const TICKS_A_SECOND: u64 = 100;

/// The processor time of a process. `directory` is its own in some /proc.
pub(crate) fn cpu_time(directory: &Path) -> Result<Duration> {
    let stat = Stat::read(directory)?;
    // utime, stime, and those of children that ended: what looks at mounts is a child.
    let ticks = (14..=17).map(|field| stat.field(field)).sum::<Result<u64>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}

/// The moment when the process was forked, to a hundredth of a second.
pub(crate) fn began(pid: i32) -> Result<Instant> {
    let ticks = Stat::read(Path::new(&format!("/proc/{pid}")))?.field(22)?;
    let now = clock_gettime(ClockId::Boottime);
    let up = Duration::new(now.tv_sec.try_into()?, now.tv_nsec.try_into()?);
    let age = up.saturating_sub(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND));
    Instant::now().checked_sub(age).ok_or_else(|| anyhow!("process {pid} began before the clock did"))
}

/// The memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// The resident memory, with every page that others share as well.
    pub rss: f64,
    /// The resident memory, with shared pages divided among the processes that share them.
    pub pss: f64,
}

pub(crate) fn memory(directory: &Path) -> Result<Memory> {
    let kibibytes = |file: &str, name: &str| {
        let path = directory.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok());
        number.ok_or_else(|| anyhow!("no {name} in {}", path.display()))
    };
    let rss = kibibytes("status", "VmRSS")? / 1024.0;
    Ok(Memory { rss, pss: kibibytes("smaps_rollup", "Pss")? / 1024.0 })
}

struct Stat(String);

impl Stat {
    fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("stat");
        fs::read_to_string(&path).map(Self).with_context(|| format!("read {}", path.display()))
    }

    /// A field by its number in proc(5), where the state is 3.
    fn field(&self, number: usize) -> Result<u64> {
        let rest = self.0.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let field = rest.split_ascii_whitespace().nth(number - 3);
        field
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| anyhow!("no field {number} in a process's stat: {:?}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name_whatever_is_in_it() {
        let stat = Stat("42 (a) b (c) S 1 42 42 0 -1 4194304 10 0 0 0 7 5 0 0 20 0 3 0 999 1 2".to_owned());
        assert_eq!(stat.field(14).unwrap(), 7);
        assert_eq!(stat.field(22).unwrap(), 999);
    }

    #[test]
    fn this_process_began_before_now_and_has_memory() {
        let me = std::process::id();
        assert!(began(me.try_into().unwrap()).unwrap() <= Instant::now());
        assert!(memory(Path::new(&format!("/proc/{me}"))).unwrap().rss > 0.0);
    }
}
