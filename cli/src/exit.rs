//! Exit codes: what a script may conclude from each.

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Success,
    /// The command failed; `diff` alone says by it that there are differences.
    General,
    Usage,
    Unchanged,
    Invalid,
    Conflict,
    Unavailable,
    Refused,
    Unhealthy,
    TimedOut,
    Interrupted,
}

impl Exit {
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::General,
        Self::Usage,
        Self::Unchanged,
        Self::Invalid,
        Self::Conflict,
        Self::Unavailable,
        Self::Refused,
        Self::Unhealthy,
        Self::TimedOut,
        Self::Interrupted,
    ];

    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::General => 1,
            Self::Usage => 2,
            Self::Unchanged => 3,
            Self::Invalid => 4,
            Self::Conflict => 5,
            Self::Unavailable => 7,
            Self::Refused => 8,
            Self::Unhealthy => 10,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "it succeeded; for `diff`: there are no differences",
            Self::General => "it failed; for `diff`: there are differences, and every failure is above 1",
            Self::Usage => "the command line is wrong, or (for `diff`) a general failure",
            Self::Unchanged => "it succeeded and changed nothing (only with --error-unchanged)",
            Self::Invalid => "the document is invalid; nothing was written",
            Self::Conflict => "somebody else changed it, or --if-version does not hold; nothing was written",
            Self::Unavailable => {
                "Consul cannot be reached, or has no leader; see the message for what is certain"
            }
            Self::Refused => {
                "refused for safety: it disturbs the VM or its protection; the message says what to do"
            }
            Self::Unhealthy => "the cluster answered and is not healthy (only with `status --exit-code`)",
            Self::TimedOut => "--timeout passed before the command was done",
            Self::Interrupted => "interrupted by Ctrl-C",
        }
    }
}

/// The text of `zsha help exit-codes`.
pub fn table() -> String {
    Exit::ALL.iter().fold(String::from("CODE  MEANING\n"), |mut text, exit| {
        text.push_str(&format!("{:<4}  {}\n", exit.code(), exit.meaning()));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_one_scripts_rely_on() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 7, 8, 10, 124, 130]);
        insta::assert_snapshot!(table());
    }
}
