//! The services that run on a host of the lab, and the configuration files they run with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::init::{HostConfig, Link, Service};
use crate::{leftovers, net};

/// The cluster's name in every lab.
pub const CLUSTER: &str = "lab";
/// The port on which each controller serves its status, on the host's own first address.
pub(crate) const STATUS_PORT: u16 = 7717;
pub(crate) const CONSUL_PORT: u16 = 8500;

/// Programs the lab starts, found once.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub init: PathBuf,
    pub consul: PathBuf,
    /// Directory of `zsha` and `zsha-controller`; none where the lab runs without the product.
    pub product: Option<PathBuf>,
}

impl Programs {
    pub(crate) fn find(with_product: bool) -> Result<Self> {
        Ok(Self {
            init: beside_us("zsha-lab-init")?,
            consul: consul()?,
            product: if with_product { Some(product_directory()?) } else { None },
        })
    }

    pub(crate) fn path(&self) -> String {
        let own = [self.product.as_deref(), self.init.parent()]
            .into_iter()
            .flatten()
            .map(|dir| dir.display().to_string());
        let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .map(str::to_owned);
        own.chain(system).collect::<Vec<_>>().join(":")
    }
}

/// The directory of the product's programs: `ZSHA_BIN_DIR`, else that beside the test's own program in target/debug or
/// target/release.
pub fn product_directory() -> Result<PathBuf> {
    let controller = match std::env::var_os("ZSHA_BIN_DIR") {
        Some(directory) => Path::new(&directory).join("zsha-controller"),
        None => beside_us("zsha-controller")?,
    };
    let directory = controller.parent().unwrap_or(Path::new("/")).to_owned();
    for program in ["zsha-controller", "zsha"] {
        if !directory.join(program).is_file() {
            bail!("no {program} in {}: build it, or set ZSHA_BIN_DIR", directory.display());
        }
    }
    directory.canonicalize().with_context(|| directory.display().to_string())
}

/// The path of a program beside this one. Cargo lays a workspace's programs in one directory and its test programs in
/// `deps` below it.
fn beside_us(program: &str) -> Result<PathBuf> {
    let us = std::env::current_exe().context("find this program")?;
    let found =
        us.ancestors().skip(1).take(2).map(|directory| directory.join(program)).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("no {program} beside {}: `cargo build --workspace` first", us.display()),
    }
}

/// The path of Consul: on PATH, else as the set-up has unpacked it.
pub fn consul() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = leftovers::cache().join("consul/usr/bin/consul");
    let mut candidates =
        std::env::split_paths(&path).map(|directory| directory.join("consul")).chain([unpacked]);
    match candidates.find(|candidate| candidate.is_file()) {
        Some(consul) => Ok(consul),
        None => bail!("no consul on PATH nor in {}: run e2e/setup.sh", leftovers::cache().display()),
    }
}

/// The plan of a host, before anything of it exists.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub programs: &'a Programs,
    pub dir: &'a Path,
    pub share: &'a Path,
    /// The names of the bridges, one for each network.
    pub bridges: &'a [String],
    pub hosts: usize,
    /// The multiplier, if it is another than the one that is shipped.
    pub raft_multiplier: Option<u32>,
    /// True if zsha's processes on each host see a wall clock that can be set.
    pub own_wall_clocks: bool,
    /// True for a host with systemd, sshd and libvirtd, and nothing of zsha's.
    pub bare: bool,
    pub unkind: Unkind,
}

/// The ways in which real hosts are less kind than those of the lab are by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unkind {
    /// No host knows the name of another, and its own leads to 127.0.1.1, as Debian's installer has it.
    pub names_unknown: bool,
}

/// The file in the host's directory that says how far the host's wall clock is from the machine's.
pub(crate) const WALL_CLOCK: &str = "wall";

pub(crate) fn host_name(number: usize) -> String {
    format!("nfs-{number}")
}

/// Writes every file host `number` needs below `DIR/nfs-N` and returns the configuration of its init.
pub(crate) fn lay_out(plan: &Plan<'_>, number: usize) -> Result<HostConfig> {
    let name = host_name(number);
    let dir = plan.dir.join(&name);
    let etc_libvirt = crate::init::on_disk(&dir, "/etc/libvirt");
    for directory in [&dir.join("log"), &dir.join("consul"), &etc_libvirt] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    write(&dir.join("hosts"), &hosts_file(plan, number))?;
    // Two hosts with one id are one machine, or a copy of it.
    write(&dir.join("machine-id"), &format!("{:032x}\n", 0x93_0000 + number))?;
    write(&dir.join(WALL_CLOCK), "+0")?;
    write(&dir.join("server.hcl"), CONSUL_SETTINGS)?;
    write(&dir.join("consul.json"), &consul_config(plan, number, &dir).to_string())?;
    write(&etc_libvirt.join("libvirtd.conf"), &libvirtd_config(number))?;
    write(&etc_libvirt.join("qemu.conf"), QEMU_CONFIG)?;
    write(&dir.join("node.yaml"), NODE_FILE)?;

    let link = |(network, bridge): (usize, &String)| Link {
        device: format!("eth{network}"),
        bridge: bridge.clone(),
        address: format!("{}/24", net::address(network, number)),
        mac: format!("02:00:00:93:{network:02x}:{number:02x}"),
    };
    let config = HostConfig {
        links: plan.bridges.iter().enumerate().map(link).collect(),
        services: if plan.bare { Vec::new() } else { services(plan, number, &name, &dir)? },
        bare: plan.bare,
        share: plan.share.to_owned(),
        name,
        dir,
    };
    write(&config.dir.join("host.json"), &serde_json::to_string_pretty(&config)?)?;
    Ok(config)
}

fn services(plan: &Plan<'_>, number: usize, name: &str, dir: &Path) -> Result<Vec<Service>> {
    let file = |file: &str| dir.join(file).display().to_string();
    let service = |service: &str, restart_delay_millis, command: Vec<String>| Service {
        name: service.into(),
        command,
        environment: environment(plan.programs),
        restart_delay_millis,
        held: false,
    };
    let consul = plan.programs.consul.display().to_string();
    let mut services = vec![
        service("consul", 1000, {
            let (shipped, own) = (file("server.hcl"), file("consul.json"));
            words(&[&consul, "agent", "-config-file", &shipped, "-config-file", &own])
        }),
        service("libvirtd", 100, words(&["/usr/sbin/libvirtd", "-l", "--pid", "/run/libvirtd.pid"])),
    ];
    if let Some(product) = &plan.programs.product {
        let controller = product.join("zsha-controller").display().to_string();
        let endpoints = consul_endpoints(number, plan.hosts).join(",");
        let node_file = file("node.yaml");
        let common = ["--cluster", CLUSTER, "--node", name, "--consul", &endpoints, "--config", &node_file];
        let listen = format!("{}:{STATUS_PORT}", net::address(0, number));
        let run = ["--libvirt", "qemu:///system", "--listen", &listen];
        services.push(service(
            "keeper",
            100,
            words(&[&[controller.as_str(), "keeper"][..], &common].concat()),
        ));
        services.push(service(
            "controller",
            100,
            words(&[&[controller.as_str(), "run"][..], &common, &run].concat()),
        ));
        if plan.own_wall_clocks {
            let wall_clock = wall_clock(dir)?;
            let zsha = services
                .iter_mut()
                .filter(|service| ["keeper", "controller"].contains(&service.name.as_str()));
            zsha.for_each(|service| service.environment.extend(wall_clock.clone()));
        }
    }
    Ok(services)
}

/// The variables that make a process see another `CLOCK_REALTIME`, which the kernel has but once for all namespaces:
/// libfaketime, told to leave every other clock, and the times of files, as they are.
fn wall_clock(dir: &Path) -> Result<Vec<(String, String)>> {
    let library = leftovers::cache().join("faketime/libfaketimeMT.so.1");
    if !library.is_file() {
        bail!("no {}: run e2e/setup.sh", library.display());
    }
    let settings = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", dir.join(WALL_CLOCK).display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value)).into())
}

/// The endpoints: the local agent first, then the others'.
pub(crate) fn consul_endpoints(number: usize, hosts: usize) -> Vec<String> {
    let others = (1..=hosts).filter(|other| *other != number);
    std::iter::once(format!("http://127.0.0.1:{CONSUL_PORT}"))
        .chain(others.map(|other| format!("http://{}:{CONSUL_PORT}", net::address(0, other))))
        .collect()
}

/// The environment of a host. Nothing of the caller's reaches a host, but the log filter.
pub(crate) fn environment(programs: &Programs) -> Vec<(String, String)> {
    let log = std::env::var("ZSHA_LAB_LOG").unwrap_or_else(|_| "info".into());
    [
        ("PATH", programs.path()),
        ("HOME", "/root".into()),
        ("LC_ALL", "C.UTF-8".into()),
        ("RUST_BACKTRACE", "1".into()),
        ("RUST_LOG", log),
        ("ZSHA_CLUSTER", CLUSTER.into()),
        ("CONSUL_HTTP_ADDR", format!("http://127.0.0.1:{CONSUL_PORT}")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The settings of a server on a node of a real cluster.
const CONSUL_SETTINGS: &str = include_str!("../../manifests/consul/server.hcl");

/// The settings in a second file, which win: those that name this host and the others.
fn consul_config(plan: &Plan<'_>, number: usize, dir: &Path) -> serde_json::Value {
    let others = (1..=plan.hosts).filter(|other| *other != number).map(|other| net::address(0, other));
    let mut config = json!({
        "bootstrap_expect": plan.hosts,
        "datacenter": "lab",
        "node_name": host_name(number),
        "data_dir": dir.join("consul"),
        "bind_addr": net::address(0, number),
        "client_addr": "0.0.0.0",
        "retry_join": others.collect::<Vec<_>>(),
    });
    if let Some(multiplier) = plan.raft_multiplier {
        config["performance"] = json!({ "raft_multiplier": multiplier });
    }
    config
}

/// The path at which each host keeps the guest's seed disk; of the machine's directories `/run` is one that every host
/// has for itself.
pub const SEED: &str = "/run/zsha-state/lab/seed.img";

const NODE_FILE: &str = "domainType: qemu\nunsafeMigration: true\nmigrationUri: qemu+tcp://{address}/system\n\
    stateDir: /run/zsha-state\n";

fn hosts_file(plan: &Plan<'_>, number: usize) -> String {
    if plan.unkind.names_unknown {
        return format!("127.0.0.1 localhost\n127.0.1.1 {}\n", host_name(number));
    }
    let lines = (1..=plan.hosts).map(|number| format!("{} {}\n", net::address(0, number), host_name(number)));
    std::iter::once("127.0.0.1 localhost\n".to_owned()).chain(lines).collect()
}

/// The settings of libvirtd: a `host_uuid` of its own, or a migration would take source and target for one host.
fn libvirtd_config(number: usize) -> String {
    format!(
        "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n\
         unix_sock_group = \"root\"\nhost_uuid = \"{number:08x}-1111-4222-8333-444455556666\"\n"
    )
}

/// The settings of QEMU. The lab's hosts have no cgroups, no security driver and no virtlogd. The share is one
/// directory for all of them, so libvirt's own record of who owns the image (an xattr) would stand in the next host's
/// way.
const QEMU_CONFIG: &str = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ncgroup_controllers = []\n\
    namespaces = []\nremember_owner = 0\nstdio_handler = \"file\"\n";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
