//! A table that says whose error a look at storage has met: the storage's, the path's, or nobody's, since nobody could
//! look.

use std::io;

use rustix::io::Errno;

/// Whom an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The storage was asked, and this is its answer: who has something open on it is told the same.
    Storage,
    /// The fault is at the path: what lies there, or who may have it. What is open already does not change by that.
    Path,
    /// Nobody has looked: no descriptor, no memory, no process to be had. Whatever is not known belongs here, since it ends
    /// nothing.
    Nobodys,
}

impl Whose {
    pub(crate) fn is(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(
                Errno::IO
                | Errno::STALE
                | Errno::TIMEDOUT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::CONNREFUSED
                | Errno::CONNRESET
                | Errno::CONNABORTED
                | Errno::NOTCONN
                | Errno::SHUTDOWN
                | Errno::REMOTEIO
                | Errno::NOLINK
                | Errno::COMM
                | Errno::NXIO
                | Errno::NODEV
                | Errno::NOMEDIUM
                // What ext4 and XFS say of themselves where they are damaged.
                | Errno::UCLEAN
                | Errno::BADMSG,
            ) => Self::Storage,
            Some(
                Errno::NOENT
                | Errno::ACCESS
                | Errno::PERM
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::LOOP
                | Errno::NAMETOOLONG,
            ) => Self::Path,
            Some(_) | None => Self::Nobodys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_storage_itself_answered_is_its_own() {
        let whose = |errno: Errno| Whose::is(&errno.into());
        for errno in [Errno::IO, Errno::STALE, Errno::TIMEDOUT, Errno::HOSTDOWN, Errno::NOTCONN] {
            assert_eq!(whose(errno), Whose::Storage, "{errno}");
        }
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::INTR,
            Errno::NOBUFS,
            Errno::NOSYS,
            Errno::INVAL,
        ] {
            assert_eq!(whose(errno), Whose::Nobodys, "{errno}");
        }
        assert_eq!(whose(Errno::ACCESS), Whose::Path);
        assert_eq!(Whose::is(&io::Error::other("of no number")), Whose::Nobodys);
    }
}
