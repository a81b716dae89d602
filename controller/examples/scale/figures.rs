//! Figures by the number of nodes, as a table: median, worst, and by how much a larger cluster costs more than the
//! smallest. It knows no cluster.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use zsha_runtime::{Clock, Moment};

/// The time that some work took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// The time of the processor.
    pub cpu: Duration,
    /// The time on the clock, with all that was waited for.
    pub wall: Duration,
}

/// Work that is under way.
pub(crate) struct Span {
    whose: ClockId,
    cpu: Duration,
    wall: Moment,
}

impl Span {
    /// Begins to count the processor time of this thread.
    pub(crate) fn of_thread() -> Self {
        Self::begin(ClockId::ThreadCPUTime)
    }

    /// Begins to count the processor time of the whole process.
    pub(crate) fn of_process() -> Self {
        Self::begin(ClockId::ProcessCPUTime)
    }

    fn begin(whose: ClockId) -> Self {
        Self { whose, cpu: used(whose), wall: Clock::Boottime.now() }
    }

    /// The time spent up to now.
    pub(crate) fn end(&self) -> Spent {
        let cpu = used(self.whose).saturating_sub(self.cpu);
        Spent { cpu, wall: Clock::Boottime.now().since(self.wall) }
    }
}

fn used(whose: ClockId) -> Duration {
    let time = clock_gettime(whose);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds of the processor.
    Cpu,
    /// Microseconds on the clock.
    Wall,
    PerSecond,
    /// A share of one core.
    Percent,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "us cpu",
            Self::Wall => "us wall",
            Self::PerSecond => "a second",
            Self::Percent => "% of a core",
        }
    }
}

/// One line of the table: what was measured of clusters of one size.
#[derive(Debug)]
struct Figure {
    name: String,
    unit: Unit,
    nodes: u8,
    samples: Vec<f64>,
}

impl Figure {
    /// The median by the nearest rank: always a value that was measured.
    fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len().div_ceil(2).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn worst(&self) -> f64 {
        self.samples.iter().copied().fold(f64::NAN, f64::max)
    }
}

/// All figures, in the order in which each was first measured.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn spent(&mut self, name: &str, nodes: u8, spent: Spent) {
        self.count(name, Unit::Cpu, nodes, spent.cpu.as_secs_f64() * 1e6);
        self.count(name, Unit::Wall, nodes, spent.wall.as_secs_f64() * 1e6);
    }

    /// Takes one sample in.
    pub(crate) fn count(&mut self, name: &str, unit: Unit, nodes: u8, value: f64) {
        let known =
            |figure: &&mut Figure| figure.name == name && figure.unit == unit && figure.nodes == nodes;
        match self.0.iter_mut().find(known) {
            Some(figure) => figure.samples.push(value),
            None => self.0.push(Figure { name: name.to_owned(), unit, nodes, samples: vec![value] }),
        }
    }

    /// The figures of one name and unit, the smallest cluster first.
    fn of<'a>(&'a self, name: &'a str, unit: Unit) -> impl Iterator<Item = &'a Figure> {
        self.0.iter().filter(move |figure| figure.name == name && figure.unit == unit)
    }

    /// The growth of the median over that of the smallest cluster, and the growth of the nodes beside it.
    fn growth(&self, of: &Figure) -> Option<(f64, f64)> {
        let first = self.of(&of.name, of.unit).next()?;
        Some((of.median() / first.median(), f64::from(of.nodes) / f64::from(first.nodes)))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let head = "by number of nodes";
        writeln!(f, "{head:width$}  unit         nodes    n    median     worst  growth (of nodes)")?;
        let mut shown: Vec<(&str, Unit)> = Vec::new();
        for figure in &self.0 {
            let (name, unit) = (figure.name.as_str(), figure.unit);
            if shown.contains(&(name, unit)) {
                continue;
            }
            shown.push((name, unit));
            for figure in self.of(name, unit) {
                writeln!(f, "{name:width$}  {}", self.line(figure))?;
            }
        }
        write!(
            f,
            "growth: the median by that of the smallest cluster. One above the growth of nodes is more than linear."
        )
    }
}

impl Figures {
    fn line(&self, figure: &Figure) -> String {
        let (unit, nodes, n) = (figure.unit.name(), figure.nodes, figure.samples.len());
        let (median, worst) = (figure.median(), figure.worst());
        let line = format!("{unit:11}  {nodes:5}  {n:3}  {median:8.2}  {worst:8.2}");
        match self.growth(figure) {
            Some((costs, nodes)) => format!("{line}  {costs:6.1} ({nodes:.1})"),
            None => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_by_how_much_a_larger_cluster_costs_more() {
        let mut figures = Figures::default();
        for (nodes, value) in [(3, 2.0), (3, 1.0), (3, 9.0), (99, 50.0), (99, 20.0)] {
            figures.count("plan", Unit::Cpu, nodes, value);
        }
        let table = figures.to_string();
        let of = |nodes: &str| table.lines().find(|line| line.starts_with("plan") && line.contains(nodes));
        assert!(
            of("    3    3      2.00      9.00").is_some_and(|line| line.ends_with("1.0 (1.0)")),
            "{table}"
        );
        assert!(
            of("   99    2     20.00     50.00").is_some_and(|line| line.ends_with("10.0 (33.0)")),
            "{table}"
        );
    }
}
