//! Forms of a document: as it was written, with every default in place, and the shortest that means the same.
//!
//! Never here: a form in which two documents of the same meaning differ and yet count as changed.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::document::{
    Availability, BridgeCheck, FolderText, GuestShutdownSeconds, ImageType, Mount, MountOptions, Nic, Node,
    OptionalPerNode, PoolText, Profile, Seconds, Spec, TimeServer, Written,
};
use crate::records::LeaseTimings;
use crate::{HaCluster, NodeName};

/// The form that is stored: what the person wrote, in the order of the fields, no default added.
pub fn normalised(cluster: &HaCluster) -> Value {
    serde_json::to_value(cluster)
        .unwrap_or_else(|error| unreachable!("every type of the document is JSON: {error}"))
}

/// A document as YAML, fields in their usual order.
pub fn to_yaml(cluster: &HaCluster) -> String {
    serde_yaml::to_string(cluster)
        .unwrap_or_else(|error| unreachable!("every type of the document is YAML: {error}"))
}

/// True if the two documents mean the same: exactly when their [`crate::diff::diff`] is empty. Then there is nothing to
/// apply, and the generation stays.
pub fn same(a: &HaCluster, b: &HaCluster) -> bool {
    canonical(a) == canonical(b)
}

/// A name for what the document means: SHA-256 over its canonical form, in hexadecimal.
pub fn digest(cluster: &HaCluster) -> String {
    let text = normalised(&canonical(cluster)).to_string();
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

/// The shortest document that means the same: defaults left out, one spelling.
pub fn canonical(cluster: &HaCluster) -> HaCluster {
    let mut canonical = effective(cluster);
    let spec = &mut canonical.spec;
    drop_default(&mut spec.mon_addrs, Vec::is_empty);
    drop_default(&mut spec.chrony_servers, Vec::is_empty);
    drop_default(&mut spec.pool_name, |pool| pool.as_str().is_empty());
    drop_default(&mut spec.image_folder, |folder| folder.as_str().is_empty());
    drop_default(&mut spec.dns, Vec::is_empty);
    drop_default(&mut spec.console_proxy_overridden_ip, |address| address.0.is_none());
    drop_default(&mut spec.allow_reset_root_password, |allow| !allow);
    drop_default(&mut spec.mounts, Vec::is_empty);
    drop_default(&mut spec.bridges, Vec::is_empty);
    drop_default(&mut spec.guest_power_off, |then| *then == crate::document::GuestPowerOff::Restart);
    drop_default(&mut spec.guest_shutdown_seconds, |seconds| {
        seconds.get() == HaCluster::DEFAULT_GUEST_SHUTDOWN_SECONDS
    });
    // An even number of nodes has to say which of them are servers.
    if !cluster.nodes().len().is_multiple_of(2) {
        drop_default(&mut spec.servers, |servers| {
            *servers == sorted_names(cluster.servers_unless_named().iter())
        });
    }
    for mount in spec.mounts.iter_mut().flatten() {
        drop_default(&mut mount.fs_type, |fs_type| fs_type.as_str() == "nfs4");
        drop_default(&mut mount.options, |options| options.as_str().is_empty());
    }
    for bridge in spec.bridges.iter_mut().flatten() {
        drop_default(&mut bridge.require_carrier, |require| *require);
    }
    if let Some(placement) = &mut spec.placement {
        drop_default(&mut placement.preferred, Vec::is_empty);
        drop_default(&mut placement.failback, |failback| *failback == crate::document::Failback::Off);
    }
    if let Some(availability) = &mut spec.availability {
        drop_default(&mut availability.profile, |profile| *profile == Profile::Balanced);
    }
    if let Some(fencing) = &mut spec.fencing {
        drop_default(&mut fencing.watchdog, |watchdog| *watchdog == crate::document::Watchdog::Automatic);
    }
    drop_default(&mut spec.placement, |section| *section == Default::default());
    drop_default(&mut spec.availability, |section| *section == Default::default());
    drop_default(&mut spec.fencing, |section| *section == Default::default());
    canonical
}

fn drop_default<T>(field: &mut Option<T>, is_default: impl Fn(&T) -> bool) {
    if field.as_ref().is_some_and(is_default) {
        *field = None;
    }
}

/// The form that is compared: every default in place, and one spelling.
pub fn effective(cluster: &HaCluster) -> HaCluster {
    let spec = &cluster.spec;
    HaCluster {
        api_version: cluster.api_version,
        kind: cluster.kind,
        metadata: cluster.metadata.clone(),
        spec: Spec {
            node: spec.node.clone(),
            memory_size_in_gb: spec.memory_size_in_gb,
            cpu: spec.cpu,
            image_type: spec.image_type,
            mon_addrs: Some(cluster.mon_addrs().to_vec()),
            chrony_servers: Some(spec.chrony_servers.iter().flatten().map(TimeServer::canonical).collect()),
            pool_name: Some(spec.pool_name.clone().unwrap_or_else(PoolText::none)),
            image_folder: Some(
                spec.image_folder.as_ref().map_or_else(FolderText::none, FolderText::canonical),
            ),
            image_format: match spec.image_type {
                ImageType::FileConf => Some(cluster.image_format()),
                ImageType::CephConf => None,
            },
            dns: Some(spec.dns.iter().flatten().map(Written::canonical).collect()),
            network: spec.network.iter().map(effective_nic).collect(),
            console_proxy_overridden_ip: Some(effective_proxy(spec)),
            allow_reset_root_password: Some(cluster.allow_reset_root_password()),
            mounts: Some(cluster.mounts().iter().map(effective_mount).collect()),
            bridges: Some(effective_bridges(spec)),
            placement: Some(crate::document::Placement {
                preferred: Some(cluster.placement().preferred().to_vec()),
                failback: Some(cluster.placement().failback()),
            }),
            availability: Some(effective_availability(cluster.availability())),
            fencing: Some(crate::document::Fencing { watchdog: Some(cluster.fencing().watchdog()) }),
            guest_power_off: Some(cluster.guest_power_off()),
            guest_shutdown_seconds: GuestShutdownSeconds::new(cluster.guest_shutdown_seconds()),
            servers: Some(sorted_names(cluster.servers())),
        },
    }
}

/// The names in their own order, since the order that they were written in means nothing.
fn sorted_names<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<NodeName> {
    let mut names: Vec<NodeName> = nodes.into_iter().map(|node| node.name.clone()).collect();
    names.sort();
    names
}

fn effective_proxy(spec: &Spec) -> Written<OptionalPerNode> {
    let given = spec.console_proxy_overridden_ip.as_ref().and_then(|written| written.0.as_ref());
    OptionalPerNode(given.map(crate::document::PerNode::sorted)).into()
}

fn effective_nic(nic: &Nic) -> Nic {
    Nic {
        bridge: nic.bridge.clone(),
        mac_address: nic.mac_address.canonical(),
        ipaddr: nic.ipaddr.sorted().into(),
        netmask: nic.netmask.sorted().into(),
        gateway: nic.gateway.sorted().into(),
        is_mgmt: nic.is_mgmt,
        is_def_route: nic.is_def_route,
    }
}

fn effective_mount(mount: &Mount) -> Mount {
    Mount {
        source: mount.source.clone(),
        target: mount.target.canonical(),
        fs_type: mount.fs_type.clone().or_else(|| Mount::DEFAULT_FS_TYPE.parse().ok()),
        options: Some(mount.options.clone().unwrap_or_else(MountOptions::none)),
    }
}

/// The bridges in order of their names, since the order that they were written in means nothing.
fn effective_bridges(spec: &Spec) -> Vec<BridgeCheck> {
    let filled = |bridge: &BridgeCheck| BridgeCheck {
        name: bridge.name.clone(),
        require_carrier: Some(bridge.require_carrier()),
    };
    let mut bridges: Vec<_> = spec.bridges.iter().flatten().map(filled).collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    bridges
}

/// The profile, and only the values that are not the profile's own.
fn effective_availability(given: &Availability) -> Availability {
    let profile = given.profile();
    let base = Availability { profile: Some(profile), ..Availability::default() }.timings();
    let own = |value: Option<Seconds>, of: fn(&LeaseTimings) -> u64| {
        value.filter(|seconds| seconds.as_millis() != of(&base))
    };
    Availability {
        profile: Some(profile),
        renew_seconds: own(given.renew_seconds, |timings| timings.renew_millis),
        ttl_seconds: own(given.ttl_seconds, |timings| timings.ttl_millis),
        kill_seconds: own(given.kill_seconds, |timings| timings.kill_millis),
        fence_after_seconds: own(given.fence_after_seconds, |timings| timings.fence_after_millis),
    }
}
