//! What zsha has told the guest: `/etc/zsha/guest.env`, lines of `NAME="value"` that cloud-init has written.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

pub(crate) const FILE: &str = "/etc/zsha/guest.env";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// The id of the whole configuration: another where anything in it is.
    pub(crate) id: String,
    pub(crate) management: Option<Ipv4Addr>,
    pub(crate) console_proxy: Option<Ipv4Addr>,
    pub(crate) dns: Vec<Ipv4Addr>,
    /// Names or addresses.
    pub(crate) time_servers: Vec<String>,
}

/// None: there is no such file.
pub(crate) fn read(root: &Path) -> Result<Option<Told>, String> {
    let file = root.join(FILE.trim_start_matches('/'));
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text).map(Some).map_err(|why| format!("{}: {why}", file.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

fn parse(text: &str) -> Result<Told, String> {
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("line {} is no NAME=\"value\"", number + 1))?;
        values.insert(name.trim(), value.trim().trim_matches('"'));
    }
    let value = |name: &str| values.get(name).copied().unwrap_or_default();
    let address = |name: &str, text: &str| -> Result<Ipv4Addr, String> {
        text.parse().map_err(|_| format!("{name} holds '{text}', which is no IPv4 address"))
    };
    let one = |name: &str| {
        Some(value(name)).filter(|text| !text.is_empty()).map(|text| address(name, text)).transpose()
    };
    let words = |name: &str| value(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    Ok(Told {
        id: value("ZSHA_CONFIG_ID").to_owned(),
        management: one("ZSHA_MANAGEMENT_IP")?,
        console_proxy: one("ZSHA_CONSOLE_PROXY_IP")?,
        dns: words("ZSHA_DNS").iter().map(|text| address("ZSHA_DNS", text)).collect::<Result<_, _>>()?,
        time_servers: words("ZSHA_CHRONY_SERVERS"),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = "ZSHA_MANAGEMENT_IP=\"172.20.10.3\"\nZSHA_CONSOLE_PROXY_IP=\"\"\n\
        ZSHA_DNS=\"172.20.10.1 172.20.10.2\"\nZSHA_CHRONY_SERVERS=\"192.168.10.11 time.lan\"\nZSHA_CONFIG_ID=\"mnvm-1\"\n";

    pub(crate) fn example() -> Told {
        parse(EXAMPLE).unwrap()
    }

    #[test]
    fn the_file_that_cloud_init_writes_is_read() {
        let told = example();
        assert_eq!((told.id.as_str(), told.management), ("mnvm-1", Some(Ipv4Addr::new(172, 20, 10, 3))));
        assert_eq!((told.console_proxy, told.dns.len(), told.time_servers.len()), (None, 2, 2));
    }

    #[test]
    fn what_is_no_address_is_told_with_its_place_and_a_missing_file_is_no_error() {
        assert!(parse("ZSHA_DNS=\"1.2.3\"").unwrap_err().contains("ZSHA_DNS holds '1.2.3'"));
        assert!(parse("\nnonsense").unwrap_err().contains("line 2"));
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), Ok(None));
        std::fs::create_dir_all(root.path().join("etc/zsha/guest.env")).unwrap();
        assert!(read(root.path()).unwrap_err().contains("guest.env: "), "unreadable is not missing");
    }
}
