//! "Did you mean": the known word nearest to an unknown one.
//!
//! Never here: taking the guess for what was meant.

/// The candidate that is the fewest changed characters away, if that is near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let near_enough = (given.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The number of characters put in, left out, exchanged, or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = usize::from(a[i - 1] != b[j - 1]);
                let mut least =
                    (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + changed);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_a_foreign_word_is_not() {
        let known = ["Network", "Node", "MemorySizeInGB", "CPU"];
        assert_eq!(nearest("Netwrok", known), Some("Network"));
        assert_eq!(nearest("memorySizeInGb", known), Some("MemorySizeInGB"));
        assert_eq!(nearest("cpus", known), Some("CPU"));
        assert_eq!(nearest("replicas", known), None);
    }
}
