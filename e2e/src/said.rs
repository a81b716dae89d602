//! Looks for lines in the output of a command.

use anyhow::{Result, ensure};

/// Fails unless these lines are there in this order, with others between them or not.
pub fn in_order(text: &str, lines: &[&str]) -> Result<()> {
    each_in_order(text, lines, |line, wanted| line.trim_end() == wanted)
}

/// Does the same with what lines begin with.
pub fn begin_in_order(text: &str, beginnings: &[&str]) -> Result<()> {
    each_in_order(text, beginnings, |line, wanted| line.starts_with(wanted))
}

fn each_in_order(text: &str, wanted: &[&str], is: impl Fn(&str, &str) -> bool) -> Result<()> {
    let mut rest = text.lines();
    for one in wanted {
        ensure!(rest.any(|line| is(line, one)), "no {one:?} where it belongs in:\n{text}");
    }
    Ok(())
}
