//! Shows the figures that were measured, as a table for people and as JSON for programs. It knows no lab and compares
//! with no aim: the reader does.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::machine::Machine;

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Unit {
    Seconds,
    Mebibytes,
    Percent,
    PerSecond,
}

/// One line of the report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figure {
    name: String,
    unit: Unit,
    /// The aim in words; empty where there is none.
    aim: String,
    /// The samples in the order of measuring.
    samples: Vec<f64>,
}

impl Figure {
    /// The percentile by the nearest rank: always a value that was measured.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn p50(&self) -> f64 {
        self.percentile(50)
    }

    fn max(&self) -> f64 {
        self.percentile(100)
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    pub machine: Machine,
    /// The figures in the order in which each was first measured.
    figures: Vec<Figure>,
    /// The notes that a reader needs on single samples.
    notes: Vec<String>,
    missing: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, figures: Vec::new(), notes: Vec::new(), missing: Vec::new() }
    }

    /// Measures one thing. Where it fails, the figures measured before stay, the report says what is missing, and the
    /// next section goes on.
    pub(crate) fn section(&mut self, what: &str, measure: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = measure(self) {
            let missing = format!("{what}: {error:#}");
            eprintln!("bench: {missing}");
            self.missing.push(missing);
        }
    }

    /// Takes one sample in. All samples of one name are one figure.
    pub(crate) fn sample(&mut self, name: &str, unit: Unit, aim: &str, value: f64) {
        eprintln!("bench: {name}: {}", shown(value, unit));
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.samples.push(value),
            None => self.figures.push(Figure {
                name: name.to_owned(),
                unit,
                aim: aim.to_owned(),
                samples: vec![value],
            }),
        }
    }

    pub(crate) fn took(&mut self, name: &str, aim: &str, took: Duration) {
        self.sample(name, Unit::Seconds, aim, took.as_secs_f64());
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("bench: {note}");
        self.notes.push(note);
    }

    /// True if every section came to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Writes `target/bench.json`.
    pub(crate) fn save(&self) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bench.json");
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| json!({ "figure": figure, "p50": figure.p50(), "max": figure.max() }))
            .collect();
        let all = json!({ "machine": self.machine, "figures": figures, "notes": self.notes, "missing": self.missing });
        let text = serde_json::to_string_pretty(&all)?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        println!("also in {}", path.display());
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        writeln!(f, "\n{:width$}  {:>3}  {:>9}  {:>9}  aim", "figure", "n", "p50", "max")?;
        for figure in &self.figures {
            let (p50, max) = (shown(figure.p50(), figure.unit), shown(figure.max(), figure.unit));
            let line = format!(
                "{:width$}  {:>3}  {p50:>9}  {max:>9}  {}",
                figure.name,
                figure.samples.len(),
                figure.aim
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for missing in &self.missing {
            writeln!(f, "NOT MEASURED: {missing}")?;
        }
        Ok(())
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value.abs() < 0.1 => format!("{:.1} ms", value * 1000.0),
        Unit::Seconds if value.abs() < 1.0 => format!("{:.0} ms", value * 1000.0),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
        Unit::Percent => format!("{value:.2} %"),
        Unit::PerSecond if value >= 100.0 => format!("{value:.0} /s"),
        Unit::PerSecond => format!("{value:.2} /s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[f64]) -> Figure {
        Figure { name: String::new(), unit: Unit::Seconds, aim: String::new(), samples: samples.to_vec() }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let five = figure(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((five.p50(), five.max()), (3.0, 5.0));
        let two = figure(&[2.0, 1.0]);
        assert_eq!((two.p50(), two.max()), (1.0, 2.0));
        assert_eq!(figure(&[7.0]).p50(), 7.0);
    }
}
