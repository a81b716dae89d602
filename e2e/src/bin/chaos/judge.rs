//! Judges what came of a fault by what must come of it: values in, sentences out. It knows no lab and no clock.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// The outcome that a fault must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The very same process runs on.
    Untouched,
    /// The VM runs again, as another process, within the bound.
    Recovers,
    /// One or the other happens; the VM runs in the end.
    Runs,
}

/// The findings on one fault, from a cluster at rest to a cluster at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The VM's process before; where the fault was to move the VM, the process that it was moved to.
    pub before: i32,
    /// The time from the fault until another process ran the VM, or until what was begun by hand was over. It is looked
    /// for only where that has to happen.
    pub took: Option<Duration>,
    /// The time that the product promises for that.
    pub bound: Duration,
    /// The VM's process once everything is mended, or why the cluster has not come to rest.
    pub after: Result<i32, String>,
    /// The number of moments with two copies.
    pub doubles: usize,
    /// The number of the VM's processes that ended, beyond those that the fault ends.
    pub ended: usize,
    /// Anything else that went wrong on the way.
    pub trouble: Option<String>,
}

/// Everything that is wrong with it, a sentence each; nothing where it came as it must.
pub(crate) fn judge(expected: Expected, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    if seen.doubles > 0 {
        wrong.push(format!("two copies at once, {} times", seen.doubles));
    }
    if seen.ended > 0 {
        wrong.push(format!("healthy VMs ended: {}", seen.ended));
    }
    wrong.extend(seen.trouble.clone());
    match (expected, seen.took) {
        (Expected::Recovers, None) if seen.trouble.is_none() => wrong.push("it did not run again".to_owned()),
        (_, Some(took)) if took > seen.bound => {
            wrong.push(format!("it took {took:.2?}, and {:.2?} are promised", seen.bound));
        }
        (Expected::Recovers | Expected::Untouched | Expected::Runs, _) => {}
    }
    match &seen.after {
        Err(why) => wrong.push(why.clone()),
        Ok(after) if expected == Expected::Untouched && *after != seen.before => {
            wrong.push(format!("its process was {}, and is {after} now", seen.before));
        }
        Ok(_) => {}
    }
    wrong
}

/// One fault and what came of it.
#[derive(Debug)]
pub(crate) struct Outcome<F> {
    pub fault: F,
    pub expected: Expected,
    pub seen: Seen,
    pub wrong: Vec<String>,
}

impl<F> Outcome<F> {
    pub(crate) fn of(fault: F, expected: Expected, seen: Seen) -> Self {
        Self { fault, expected, wrong: judge(expected, &seen), seen }
    }
}

/// True if the run as a whole is a success. `doubles` are those of all of it. A run without a fault shows nothing.
pub(crate) fn passed<F>(outcomes: &[Outcome<F>], doubles: usize) -> bool {
    !outcomes.is_empty() && doubles == 0 && outcomes.iter().all(|outcome| outcome.wrong.is_empty())
}

/// A table with a row for each kind of fault, then a line for everything that was wrong. Where nothing is timed, the
/// last column has the outcome that was expected.
pub(crate) fn table<F: Copy + Ord + Debug>(outcomes: &[Outcome<F>]) -> String {
    let mut rows: BTreeMap<F, Vec<&Outcome<F>>> = BTreeMap::new();
    for outcome in outcomes {
        rows.entry(outcome.fault).or_default().push(outcome);
    }
    let mut text = row("FAULT", ["TIMES", "WRONG", "DOUBLE", "MEDIAN", "MAX", "BOUND"].map(str::to_owned));
    for (fault, outcomes) in rows {
        let mut took: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.seen.took).collect();
        took.sort();
        let bound = outcomes.iter().map(|outcome| outcome.seen.bound).max();
        let bound = match outcomes[0].expected {
            _ if !took.is_empty() => seconds(bound.as_ref()),
            Expected::Untouched => "untouched".to_owned(),
            Expected::Runs => "runs".to_owned(),
            Expected::Recovers => "-".to_owned(),
        };
        let wrong = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty()).count();
        let doubles: usize = outcomes.iter().map(|outcome| outcome.seen.doubles).sum();
        let cells = [
            outcomes.len().to_string(),
            wrong.to_string(),
            doubles.to_string(),
            seconds(took.get(took.len() / 2)),
            seconds(took.last()),
            bound,
        ];
        text.push_str(&row(&format!("{fault:?}"), cells));
    }
    for outcome in outcomes {
        for wrong in &outcome.wrong {
            text.push_str(&format!("WRONG {:?}: {wrong}\n", outcome.fault));
        }
    }
    text
}

fn row(name: &str, [times, wrong, doubles, median, max, bound]: [String; 6]) -> String {
    format!("{name:<34} {times:>5} {wrong:>6} {doubles:>6} {median:>9} {max:>9} {bound:>9}\n")
}

fn seconds(span: Option<&Duration>) -> String {
    span.map_or("-".to_owned(), |span| format!("{:.2} s", span.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Fault;

    const BOUND: Duration = Duration::from_secs(13);

    fn untouched() -> Seen {
        Seen { before: 7, took: None, bound: BOUND, after: Ok(7), doubles: 0, ended: 0, trouble: None }
    }

    fn recovered(took: Duration) -> Seen {
        Seen { took: Some(took), after: Ok(8), ..untouched() }
    }

    const LATE: Duration = Duration::from_millis(13_001);

    /// Broken faults, each with what must be said of it.
    fn broken() -> Vec<(Expected, Seen, &'static str)> {
        use Expected::{Recovers, Runs, Untouched};
        vec![
            (Recovers, recovered(LATE), "it took 13.00s, and 13.00s are promised"),
            (Recovers, recovered(Duration::from_secs(40)), "it took 40.00s, and 13.00s are promised"),
            (Recovers, Seen { took: None, ..recovered(BOUND) }, "it did not run again"),
            (Recovers, Seen { doubles: 1, ..recovered(BOUND) }, "two copies at once, 1 times"),
            (Untouched, Seen { doubles: 2, ..untouched() }, "two copies at once, 2 times"),
            (Runs, Seen { doubles: 1, ..untouched() }, "two copies at once, 1 times"),
            (Untouched, Seen { ended: 1, ..untouched() }, "healthy VMs ended: 1"),
            (Recovers, Seen { ended: 2, ..recovered(BOUND) }, "healthy VMs ended: 2"),
            (Untouched, Seen { took: Some(LATE), ..untouched() }, "it took 13.00s, and 13.00s are promised"),
            (Untouched, Seen { after: Ok(8), ..untouched() }, "its process was 7, and is 8 now"),
            (Untouched, Seen { after: Err("not settled".to_owned()), ..untouched() }, "not settled"),
            (Runs, Seen { after: Err("not settled".to_owned()), ..untouched() }, "not settled"),
            (
                Untouched,
                Seen { trouble: Some("gone for a while".to_owned()), ..untouched() },
                "gone for a while",
            ),
            (Recovers, Seen { took: None, trouble: Some("never".to_owned()), ..untouched() }, "never"),
        ]
    }

    #[test]
    fn what_came_as_it_must_is_no_fault() {
        for (expected, seen) in [
            (Expected::Untouched, untouched()),
            (Expected::Untouched, Seen { took: Some(BOUND), ..untouched() }),
            (Expected::Recovers, recovered(BOUND)),
            (Expected::Runs, untouched()),
            (Expected::Runs, Seen { took: None, ..recovered(LATE) }),
        ] {
            let outcome = Outcome::of(Fault, expected, seen);
            assert_eq!(outcome.wrong, Vec::<String>::new());
            assert!(passed(&[outcome], 0));
        }
    }

    #[test]
    fn each_way_of_being_wrong_is_said_fails_the_run_and_stands_in_the_table() {
        for (expected, seen, said) in broken() {
            let outcome = Outcome::of(Fault, expected, seen);
            assert_eq!(outcome.wrong, [said]);
            let doubles = outcome.seen.doubles;
            let outcomes = [Outcome::of(Fault, Expected::Untouched, untouched()), outcome];
            assert!(!passed(&outcomes, doubles), "{said}");
            let table = table(&outcomes);
            let line = table.lines().nth(1).unwrap();
            let cells: Vec<&str> = line.split_ascii_whitespace().collect();
            assert_eq!(cells[..4], ["Fault", "2", "1", &doubles.to_string()], "{table}");
            assert!(table.ends_with(&format!("WRONG Fault: {said}\n")), "{table}");
        }
    }

    #[test]
    fn a_double_run_between_two_faults_fails_the_run_too() {
        assert!(!passed(&[Outcome::of(Fault, Expected::Untouched, untouched())], 1));
    }

    #[test]
    fn a_run_that_inflicted_nothing_shows_nothing() {
        assert!(!passed::<Fault>(&[], 0));
    }

    #[test]
    fn times_stand_in_the_table_with_their_bound() {
        let took = [3, 9, 5].map(|seconds| recovered(Duration::from_secs(seconds)));
        let outcomes = took.map(|seen| Outcome::of(Fault, Expected::Recovers, seen));
        let table = table(&outcomes);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_ascii_whitespace().collect();
        assert_eq!(row, ["Fault", "3", "0", "0", "5.00", "s", "9.00", "s", "13.00", "s"], "{table}");
    }

    #[test]
    fn where_nothing_is_timed_the_table_says_what_was_to_come_of_it() {
        for (expected, said) in [(Expected::Untouched, "untouched"), (Expected::Runs, "runs")] {
            let table = table(&[Outcome::of(Fault, expected, untouched())]);
            let row: Vec<&str> = table.lines().nth(1).unwrap().split_ascii_whitespace().collect();
            assert_eq!(row, ["Fault", "1", "0", "0", "-", "-", said], "{table}");
        }
    }
}
