//! Describes the machine that the figures were measured on, so that a reader can judge them. It says what is so, and
//! waits for nothing quieter.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use zsha_e2e::command;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    /// The load in `/proc/loadavg` before anything was started.
    load: String,
    cores: usize,
    processor: String,
    kernel: String,
    programs: PathBuf,
    /// The output of `zsha version`.
    version: Vec<String>,
    /// The time in seconds since 1970.
    at: u64,
}

impl Machine {
    pub(crate) fn look(programs: &Path) -> Result<Self> {
        let mut zsha = Command::new(programs.join("zsha"));
        let version = command::run(zsha.arg("-v"), "", Duration::from_secs(10))?.success()?;
        let processors = read("/proc/cpuinfo")?;
        let processor = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            load: read("/proc/loadavg")?,
            cores: std::thread::available_parallelism().context("count the cores")?.get(),
            processor: processor.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease")?,
            programs: programs.to_owned(),
            version: version
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?.as_secs(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "load average before  {}", self.load)?;
        writeln!(f, "machine              {} cores, {}, Linux {}", self.cores, self.processor, self.kernel)?;
        writeln!(f, "guest                under emulation (TCG), 4 virtual cores")?;
        write!(f, "programs             {}: {}", self.programs.display(), self.version.join(", "))
    }
}

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}
