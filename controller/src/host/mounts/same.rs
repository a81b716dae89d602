//! Whether what the kernel's table says is mounted is what was wanted: file systems and sources have other names in the
//! table than in fstab(5). Values in, values out.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The file systems that mount(8) and the kernel know by different names, beside those of which the kernel's is
/// `fuse.` and mount(8)'s.
const OTHER_NAMES: [(&str, &str); 4] =
    [("nfs", "nfs4"), ("moosefs", "mfs"), ("lizardfs", "mfs"), ("ceph", "ceph-fuse")];

/// True if a file system of the wanted name for mount(8) is in the table by this name.
pub(super) fn kind(wanted: &str, there: &str) -> bool {
    let plain = |name: &str| name.strip_prefix("fuse.").unwrap_or(name).to_owned();
    let (wanted, there) = (plain(wanted), plain(there));
    wanted == there || OTHER_NAMES.contains(&(wanted.as_str(), there.as_str()))
}

/// True if both name one source, for all that can be told from the names.
pub(super) fn source(kind: &str, wanted: &str, there: &str) -> bool {
    if trimmed(wanted) == trimmed(there) {
        return true;
    }
    match kind.strip_prefix("fuse.").unwrap_or(kind) {
        "ceph" | "ceph-fuse" => ceph(wanted, there),
        "glusterfs" => gluster(wanted, there),
        _ => false,
    }
}

fn trimmed(source: &str) -> &str {
    match source.trim_end_matches('/') {
        "" => source,
        rest if rest.ends_with(':') => source,
        rest => rest,
    }
}

/// `SERVER[,SERVER...]:[/]VOLUME`. The table has one server, and a slash.
fn gluster(wanted: &str, there: &str) -> bool {
    let split = |source: &str| {
        let (servers, volume) = source.split_once(':')?;
        let servers: BTreeSet<String> = servers.split(',').map(str::to_owned).collect();
        Some((servers, volume.trim_matches('/').to_owned()))
    };
    match (split(wanted), split(there)) {
        (Some((wanted, volume)), Some((there, same))) => volume == same && !wanted.is_disjoint(&there),
        _ => false,
    }
}

/// `MONITOR[:PORT][,...]:/PATH`, or `USER@FSID.NAME=/PATH`. The table has the addresses of monitors, with their ports,
/// where the document may name them, so that names say nothing; the path does.
fn ceph(wanted: &str, there: &str) -> bool {
    let split = |source: &str| {
        let at = source.find("=/").or_else(|| source.rfind(":/"))?;
        let monitors = source[..at].split([',', ';']).map(monitor).collect::<Option<BTreeSet<IpAddr>>>();
        Some((monitors, source[at + 1..].trim_end_matches('/').to_owned()))
    };
    match (split(wanted), split(there)) {
        (Some((wanted, path)), Some((there, same))) => {
            let differ = wanted.zip(there).is_some_and(|(wanted, there)| wanted.is_disjoint(&there));
            path == same && !differ
        }
        _ => false,
    }
}

/// The address of a monitor; none where it is a name.
fn monitor(text: &str) -> Option<IpAddr> {
    let text = text.trim_start_matches("v1:").trim_start_matches("v2:");
    let address = text.parse().ok();
    address.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

/// The options that the table shows, in pairs of which only one can be.
const EITHER: [[&str; 2]; 5] =
    [["ro", "rw"], ["hard", "soft"], ["sync", "async"], ["lock", "nolock"], ["ac", "noac"]];
/// The options with a value that the table shows as they were given. A server may answer with another size than was
/// asked for, so sizes are none of them.
const VALUED: [&str; 6] = ["vers", "proto", "timeo", "retrans", "sec", "local_lock"];

/// The wanted options that are otherwise in the table, each as `soft in the place of hard`. One that the table does not
/// show is not told.
pub(crate) fn differing(wanted: &str, there: &str) -> Vec<String> {
    let there: Vec<&str> = there.split(',').collect();
    let value = |key: &str| {
        there.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
    };
    let differs = |option: &str| {
        if let Some((key, wanted)) = option.split_once('=') {
            let key = if key == "nfsvers" { "vers" } else { key };
            let there = VALUED.contains(&key).then(|| value(key)).flatten()?;
            // Version 4 is met by each of its minor ones.
            let same = there == wanted || key == "vers" && there.starts_with(&format!("{wanted}."));
            return (!same).then(|| format!("{key}={there} in the place of {option}"));
        }
        let [one, other] = EITHER.into_iter().find(|pair| pair.contains(&option))?;
        let opposite = if option == one { other } else { one };
        let is_opposite = match opposite {
            // A mount may be read-only on a file system that is not; writable it is where neither is.
            "rw" => !there.contains(&"ro"),
            opposite => there.contains(&opposite),
        };
        is_opposite.then(|| format!("{opposite} in the place of {option}"))
    };
    wanted.split(',').map(str::trim).filter_map(differs).collect()
}

/// True if the mount, or its file system, is read-only.
pub(crate) fn read_only(options: &str) -> bool {
    options.split(',').any(|option| option == "ro")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_the_wanted_one_by_each_of_its_names() {
        for (wanted, there) in [
            ("nfs", "nfs4"),
            ("glusterfs", "fuse.glusterfs"),
            ("fuse.glusterfs", "fuse.glusterfs"),
            ("moosefs", "fuse.mfs"),
            ("juicefs", "fuse.juicefs"),
            ("fuse.ceph", "fuse.ceph-fuse"),
            ("ceph", "ceph"),
            ("gfs2", "gfs2"),
        ] {
            assert!(kind(wanted, there), "{wanted} {there}");
        }
        for (wanted, there) in
            [("nfs4", "nfs"), ("nfs4", "tmpfs"), ("glusterfs", "fuse.sshfs"), ("xfs", "ext4")]
        {
            assert!(!kind(wanted, there), "{wanted} {there}");
        }
    }

    #[test]
    fn a_source_is_the_wanted_one_however_the_kernel_writes_it() {
        for (of, wanted, there) in [
            ("nfs4", "10.0.0.9:/share/", "10.0.0.9:/share"),
            ("glusterfs", "gl1:mngt", "gl1:/mngt"),
            ("glusterfs", "gl1,gl2:/mngt", "gl2:/mngt"),
            ("ceph", "10.0.0.1,10.0.0.2:/vm", "10.0.0.1:6789,10.0.0.2:6789:/vm"),
            ("ceph", "mon1,mon2:/vm/", "10.0.0.1:6789,10.0.0.2:6789:/vm"),
            ("ceph", "10.0.0.1:3300:/", "10.0.0.1:6789:/"),
            ("ceph", "mon1:/vm", "zsha@b826c2e6-2c0f-4a1e-a2a0-f1ba50a6d8a6.cephfs=/vm"),
        ] {
            assert!(source(of, wanted, there), "{of} {wanted} {there}");
        }
        for (of, wanted, there) in [
            ("nfs4", "10.0.0.9:/share", "10.0.0.9:/other"),
            ("nfs4", "gl1:mngt", "gl1:/mngt"),
            ("glusterfs", "gl1:mngt", "gl3:/mngt"),
            ("glusterfs", "gl1:mngt", "gl1:/backup"),
            ("ceph", "10.0.0.1:/vm", "10.0.0.1:6789:/other"),
            ("ceph", "10.0.0.1:/vm", "10.9.0.1:6789:/vm"),
        ] {
            assert!(!source(of, wanted, there), "{of} {wanted} {there}");
        }
        assert_eq!((trimmed("10.0.0.9:/"), trimmed("/")), ("10.0.0.9:/", "/"));
    }

    #[test]
    fn options_that_the_table_shows_otherwise_are_told_and_what_it_does_not_show_is_not() {
        let there = "rw,relatime,rw,vers=4.2,rsize=1048576,hard,proto=tcp,timeo=600,retrans=2,sec=sys,local_lock=none";
        for wanted in [
            "",
            "defaults,_netdev,hard,rsize=65536",
            "nfsvers=4,proto=tcp",
            "vers=4.2,timeo=600,rw",
            "noatime",
        ] {
            assert_eq!(differing(wanted, there), [""; 0], "{wanted}");
        }
        assert_eq!(
            differing("soft,timeo=50,vers=3,ro", there),
            [
                "hard in the place of soft",
                "timeo=600 in the place of timeo=50",
                "vers=4.2 in the place of vers=3",
                "rw in the place of ro"
            ]
        );
        assert_eq!(differing("rw", "ro,relatime,rw"), ["ro in the place of rw"]);
        assert!(
            read_only("ro,relatime,rw,vers=4.2") && read_only("rw,ro") && !read_only("rw,errors=remount-ro")
        );
    }
}
