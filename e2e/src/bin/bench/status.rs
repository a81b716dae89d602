//! Measures the wall time of `zsha status`, as a person on a node waits for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use zsha_e2e::{Cluster, Host};

use crate::report::Report;

const RUNS: usize = 20;

pub(crate) fn measure(lab: &Cluster, report: &mut Report) -> Result<()> {
    let host = lab.host(1);
    // Once for the page cache: what is measured is the command, not the disk.
    host.zsha(&["status"], "")?.success()?;
    for _ in 0..RUNS {
        let took = timed(host, &["zsha", "status"])?;
        report.took("`zsha status`", "under 50 ms", took);
    }
    for _ in 0..RUNS {
        let took = timed(host, &["true"])?;
        report.took("  of it, to enter the lab's host", "", took);
    }
    Ok(())
}

fn timed(host: &Host, words: &[&str]) -> Result<Duration> {
    let start = Instant::now();
    let finished = host.exec(words)?;
    let took = start.elapsed();
    finished.success().with_context(|| host.name.clone())?;
    Ok(took)
}
