//! Ages as kubectl writes them: two units at most, the larger first.

use jiff::Timestamp;

/// How long before `now`: `45s`, `12m`, `3h5m`, `2d3h`, `40d`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units_at_most_and_is_never_negative() {
        let now = Timestamp::from_second(10_000_000).unwrap();
        let of = |seconds: i64| age(Timestamp::from_second(10_000_000 - seconds).unwrap(), now);
        let ages = [-5, 0, 119, 125, 600, 7_200, 10_860, 90_000, 180_000, 900_000].map(of);
        assert_eq!(ages, ["0s", "0s", "119s", "2m5s", "10m", "120m", "3h1m", "25h", "2d2h", "10d"]);
    }
}
