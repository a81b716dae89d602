//! The guest's configuration as cloud-init's data source NoCloud takes it: a small FAT disk labelled `cidata` with three
//! files. Equal configurations make equal bytes. It writes no file; that is the host's.
//!
//! The files are JSON, which is YAML that cannot be misread: a MAC address of digits alone is a number to base 60 to
//! YAML 1.1, which cloud-init reads.

use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zsha_crds::VmName;

use super::{GuestConfig, NicConfig, WayBack};

/// The file in the guest with what cloud-init itself has no use for. It has lines of `NAME="value"` that a shell and
/// systemd's `EnvironmentFile=` take: `ZSHA_MANAGEMENT_IP`, `ZSHA_CONSOLE_PROXY_IP` (empty where the document has
/// none), `ZSHA_DNS` and `ZSHA_CHRONY_SERVERS` (several, with a blank between them), `ZSHA_CONFIG_ID`.
pub const GUEST_FILE: &str = "/etc/zsha/guest.env";

/// The label that NoCloud looks for, padded as FAT has it.
const LABEL: [u8; 11] = *b"cidata     ";

/// The size of every seed disk, so that one can take another's place under a running guest. Documents of hundreds of
/// servers fit.
const IMAGE_BYTES: usize = 1 << 20;

/// The three files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    pub meta_data: String,
    pub user_data: String,
    pub network_config: String,
}

impl Seed {
    pub fn new(vm: &VmName, config: &GuestConfig) -> Self {
        let id = id(vm, config);
        Self {
            meta_data: pretty(&json!({ "instance-id": id })),
            user_data: format!("#cloud-config\n{}", pretty(&user_data(config, &id))),
            network_config: pretty(&network(config)),
        }
    }

    /// The whole disk. An error only where the files do not fit.
    pub fn image(&self) -> io::Result<Vec<u8>> {
        let mut image = vec![0; IMAGE_BYTES];
        let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(self.serial_number());
        fatfs::format_volume(Cursor::new(&mut image[..]), options)?;
        let disk = FileSystem::new(Cursor::new(&mut image[..]), FsOptions::new())?;
        for (name, text) in self.files() {
            disk.root_dir().create_file(name)?.write_all(text.as_bytes())?;
        }
        disk.unmount()?;
        Ok(image)
    }

    fn files(&self) -> [(&'static str, &str); 3] {
        [
            ("meta-data", &self.meta_data),
            ("user-data", &self.user_data),
            ("network-config", &self.network_config),
        ]
    }

    /// FAT wants one. That of other contents is another, so that no cache of blocks takes one for the other.
    fn serial_number(&self) -> u32 {
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, self.meta_data.as_bytes());
        digest.as_fields().0
    }
}

/// The id of all values: at the next boot cloud-init applies what it has not applied under the same id.
pub(super) fn id(vm: &VmName, config: &GuestConfig) -> String {
    let ways_back: Vec<_> = config.ways_back().map(|way| way_back(&way)).collect();
    let values = format!("{}\n{}{}", pretty(&network(config)), environment(config), ways_back.concat());
    format!("{vm}-{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, values.as_bytes()))
}

/// The contents of [`GUEST_FILE`].
pub(super) fn guest_file(config: &GuestConfig, id: &str) -> String {
    format!("{}ZSHA_CONFIG_ID=\"{id}\"\n", environment(config))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Version 2, the one that netplan, systemd-networkd, NetworkManager, sysconfig and ifupdown are all rendered from. The NICs
/// are known by their MAC addresses and are called `eth0`, `eth1`, ... in the order of the document: some of those go by the
/// name, so one has to be given.
fn network(config: &GuestConfig) -> Value {
    let mut ethernets = Map::new();
    for (place, nic) in config.nics.iter().enumerate() {
        let name = format!("eth{place}");
        let mut ethernet = json!({
            "match": { "macaddress": nic.mac },
            "set-name": name,
            "dhcp4": false,
            "addresses": [nic.address.to_string()],
        });
        if nic.is_default_route {
            // `default` is not known to every cloud-init that is about.
            ethernet["routes"] = json!([{ "to": "0.0.0.0/0", "via": nic.gateway.to_string() }]);
            if !config.dns.is_empty() {
                ethernet["nameservers"] = json!({ "addresses": config.dns });
            }
        }
        ethernets.insert(name, ethernet);
    }
    json!({ "version": 2, "ethernets": ethernets })
}

/// The user data. With every id that is new to it, cloud-init does what it does on a machine's first boot. Nothing is
/// to be done here but what the document says: the guest keeps its name, its users, its host keys and how root logs in.
/// (Versions whose schema knows no empty list of users warn of it, and obey.)
fn user_data(config: &GuestConfig, id: &str) -> Value {
    let mut data = json!({
        "preserve_hostname": true,
        "users": [],
        "disable_root": false,
        "ssh_deletekeys": false,
        "write_files": [{
            "path": GUEST_FILE,
            "permissions": "0644",
            "content": guest_file(config, id),
        }],
    });
    let ways_back: Vec<_> = config.ways_back().map(|way| way_back(&way)).collect();
    if !ways_back.is_empty() {
        data["bootcmd"] = json!(ways_back);
    }
    if !config.time_servers.is_empty() {
        data["ntp"] = json!({ "enabled": true, "ntp_client": "chrony", "servers": config.time_servers });
    }
    data
}

/// The command that makes the routing table of a NIC, which cloud-init runs with each boot. The network configuration has no
/// place for it: most of the tools that it is rendered for would take the route for a second default route. The NIC may have
/// its address only a moment later: then the gateway is said to be there by `onlink`, which not every `ip` knows.
fn way_back(way: &WayBack<'_>) -> String {
    let WayBack { nic: NicConfig { mac, address, gateway, .. }, table } = way;
    let (source, subnet) = (address.addr(), address.trunc());
    format!(
        "at=$(grep -lixF {mac} /sys/class/net/*/address | head -n 1) && at=${{at%/address}} && dev=${{at##*/}} && ip route \
         replace {subnet} dev $dev table {table} && {{ ip route replace default via {gateway} dev $dev table {table} || ip route \
         replace default via {gateway} dev $dev onlink table {table}; }} && {{ ip rule del from {source} table {table}; ip rule \
         add from {source} table {table} pref {table}; }} 2>/dev/null"
    )
}

/// The lines of [`GUEST_FILE`], the id apart. No value holds a quote: they are addresses and host names.
fn environment(config: &GuestConfig) -> String {
    let address = |address: Option<std::net::Ipv4Addr>| address.map(|a| a.to_string()).unwrap_or_default();
    let management = config.nics.iter().find(|nic| nic.is_management).map(|nic| nic.address.addr());
    let dns: Vec<_> = config.dns.iter().map(ToString::to_string).collect();
    [
        ("ZSHA_MANAGEMENT_IP", address(management)),
        ("ZSHA_CONSOLE_PROXY_IP", address(config.console_proxy)),
        ("ZSHA_DNS", dns.join(" ")),
        ("ZSHA_CHRONY_SERVERS", config.time_servers.join(" ")),
    ]
    .map(|(name, value)| format!("{name}=\"{value}\"\n"))
    .concat()
}
