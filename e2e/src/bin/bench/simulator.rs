//! Measures how many seeds the simulator does in a second, where its release build is there: `make sim` makes it, this
//! does not.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use zsha_e2e::{command, product_directory};

use crate::report::{Report, Unit};

const SEEDS: &str = "1000";
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let programs = product_directory()?;
    let program = programs.join("examples/sim");
    // One built for debugging is slow, and says nothing.
    if !programs.ends_with("release") || !program.is_file() {
        eprintln!("bench: no release build of the simulator: `make sim SEEDS=1` makes it");
        return Ok(());
    }
    let said = command::run(Command::new(program).args(["--seeds", SEEDS]), "", LIMIT)?.success()?;
    let rate = seeds_a_second(&said).with_context(|| format!("the simulator said {said:?}"))?;
    report.sample("simulator, seeds", Unit::PerSecond, "10,000 in under 60 s: above 167 /s", rate);
    Ok(())
}

/// Reads the number from its summary: `... (123 a second), ...`.
fn seeds_a_second(said: &str) -> Option<f64> {
    let (before, _) = said.split_once(" a second)")?;
    before.rsplit_once('(')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_read_from_the_summary() {
        let said = "1000 seeds from 0 in 4.0 s on 2 cores (250 a second), 9.9 virtual hours\nviolations: 0\n";
        assert_eq!(super::seeds_a_second(said), Some(250.0));
    }
}
