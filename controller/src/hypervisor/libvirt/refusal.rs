//! Why a call to libvirt was refused, and what libvirt's words mean.

use virt::error::Error;

use crate::hypervisor::domain_xml::DomainXmlError;

/// The reason why a call was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Libvirt(Error),
    /// The words are ours and not libvirt's.
    Plain(String),
    /// No call was refused: something that had to be looked at first could not be.
    NotLooked(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Libvirt(error)
    }
}

impl From<DomainXmlError> for Refusal {
    fn from(error: DomainXmlError) -> Self {
        Self::Plain(error.to_string())
    }
}

pub(super) fn plain(reason: impl Into<String>) -> Refusal {
    Refusal::Plain(reason.into())
}

pub(super) fn not_looked(reason: impl Into<String>) -> Refusal {
    Refusal::NotLooked(reason.into())
}

/// True if QEMU could not have the image because another process has it open.
pub(super) fn is_image_lock(reason: &str) -> bool {
    reason.split("Failed to get ").skip(1).any(|rest| {
        let words = rest.lines().next().unwrap_or_default();
        words.trim_end().ends_with("lock")
    })
}

/// libvirt's words, which may hold a page of QEMU's, on one line.
pub(super) fn one_line(reason: &str) -> String {
    let lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_lock_is_told_from_other_failures_to_start() {
        let locked = "internal error: process exited while connecting to monitor: 2026-11-22T18:00:00.0Z \
            qemu-system-x86_64: -device {}: Failed to get \"write\" lock\nIs another process using the image [/x]?";
        assert!(is_image_lock(locked));
        assert!(is_image_lock("Failed to get shared \"write\" lock"));
        assert!(!is_image_lock("Cannot access storage file '/x': No such file or directory"));
        assert!(!is_image_lock("Failed to get QEMU's capabilities\nsomething about a lock"));
        assert_eq!(one_line("a\n\n  b \n"), "a; b");
    }
}
