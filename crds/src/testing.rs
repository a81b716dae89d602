//! Valid documents by number, for property tests of this crate and of others: the same number, the same document.
//!
//! Never here: anything a build for use needs; and no document that `decode_value` refuses.

use serde_json::{Map, Value, json};

use crate::{HaCluster, decode_value};

/// A document, as values, that is valid and uses what the number picks: every spelling and every optional section
/// comes up.
pub fn document(seed: u64) -> Value {
    let mut pick = Pick(seed);
    let nodes = 3 + pick.below(7);
    let mut spec = Map::new();
    let name = |at: u64| format!("nfs-{}", at + 1);
    let blank = if pick.half() { " " } else { " \t " };
    let entries: Vec<_> =
        (0..nodes).map(|at| format!("10.0.{}.{}{blank}{}", pick.below(3), at + 11, name(at))).collect();
    spec.insert("Node".into(), json!(entries));
    spec.insert("MemorySizeInGB".into(), if pick.half() { json!(8 + pick.below(64)) } else { json!(16.0) });
    spec.insert("CPU".into(), json!(4 + pick.below(12)));
    image(&mut pick, &mut spec);
    spec.insert("Network".into(), network(&mut pick, nodes));
    if pick.half() {
        spec.insert(
            "ChronyServers".into(),
            json!(["10.0.0.250", "time1.example.com "][..pick.below_usize(3)]),
        );
    }
    if pick.half() {
        spec.insert("DNS".into(), json!(["10.9.9.1", "223.5.5.5"][..pick.below_usize(3)]));
    }
    if pick.half() {
        let per_node =
            || (0..nodes).map(|at| format!("10.8.{at}.1@{}", name(at))).collect::<Vec<_>>().join(",");
        let proxy = match pick.below(3) {
            0 => String::new(),
            1 => "10.8.8.8".to_owned(),
            _ => per_node(),
        };
        spec.insert("ConsoleProxyOverriddenIP".into(), json!(proxy));
    }
    if pick.half() {
        spec.insert("AllowResetRootPassword".into(), json!(pick.half()));
    }
    sections(&mut pick, nodes, &mut spec);
    json!({ "apiVersion": "zsha.io/v1", "kind": "HaCluster", "metadata": { "name": format!("c{}", pick.below(3)) }, "spec": spec })
}

/// [`document`], decoded.
pub fn cluster(seed: u64) -> HaCluster {
    decode_value(&document(seed))
        .unwrap_or_else(|faults| panic!("document {seed} is meant to be valid: {faults}"))
}

/// The step of splitmix64: small, and every bit depends on the seed.
struct Pick(u64);

impl Pick {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn below_usize(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or(0)
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below_usize(items.len() as u64)].clone()
    }

    fn half(&mut self) -> bool {
        self.below(2) == 0
    }
}

fn image(pick: &mut Pick, spec: &mut Map<String, Value>) {
    if pick.below(4) == 0 {
        spec.insert("Type".into(), json!("CephConf"));
        spec.insert("MonAddrs".into(), json!(["10.0.7.1", "ceph-2:6789"][..=pick.below_usize(2)]));
        spec.insert("PoolName".into(), json!("zsha"));
        return;
    }
    spec.insert("Type".into(), json!("FileConf"));
    spec.insert("ImageFolder".into(), json!(pick.of(&["/opt/smp/mngt/", "/opt/smp/mngt", "/srv/vm//image"])));
    if pick.half() {
        spec.insert("ImageFormat".into(), json!(pick.of(&["qcow2", "raw"])));
    }
    if pick.half() {
        spec.insert("MonAddrs".into(), pick.of(&[json!(null), json!([])]));
        spec.insert("PoolName".into(), json!(""));
    }
}

fn network(pick: &mut Pick, nodes: u64) -> Value {
    let count = 1 + pick.below(3);
    let (mgmt, route) = (pick.below(count), pick.below(count));
    let nic = |at: u64| {
        let by_node = at == mgmt && pick.half();
        let separator = pick.of(&[", ", ",", " ,\t"]);
        let address = |host: u64| {
            if !by_node {
                return format!("172.2{at}.0.{host}");
            }
            (0..nodes)
                .map(|node| format!("172.2{at}.{node}.{host}@nfs-{}", node + 1))
                .collect::<Vec<_>>()
                .join(separator)
        };
        json!({
            "Bridge": format!("br_zsn{at}"),
            "MacAddress": format!("{}:98:54:4b:a5:c{at}", pick.of(&["02", "fA"])),
            "Ipaddr": address(3 + pick.below(9)),
            "Netmask": pick.of(&["255.255.255.0", "255.255.255.240"]),
            "Gateway": address(1),
            "IsMgmt": at == mgmt,
            "IsDefRoute": at == route,
        })
    };
    (0..count).map(nic).collect()
}

fn sections(pick: &mut Pick, nodes: u64, spec: &mut Map<String, Value>) {
    if pick.half() {
        let mounts = [
            json!({ "Source": "10.0.0.9:/share/mngt", "Target": "/opt/smp/mngt/" }),
            json!({ "Source": "10.0.0.9:/share/bs", "Target": "/opt/smp/bs", "FsType": "nfs", "Options": "hard,timeo=50" }),
        ];
        spec.insert("Mounts".into(), json!(mounts[..pick.below_usize(3)]));
    }
    if pick.half() {
        let bridges =
            [json!({ "Name": "br_st" }), json!({ "Name": "br_zsn0", "RequireCarrier": pick.half() })];
        spec.insert("Bridges".into(), json!(bridges[..pick.below_usize(3)]));
    }
    if pick.half() {
        let preferred: Vec<_> = (0..pick.below(nodes + 1)).map(|at| format!("nfs-{}", nodes - at)).collect();
        let failback = pick.of(&["auto", "off"]);
        let forms = [
            json!({}),
            json!({ "Failback": failback }),
            json!({ "Preferred": preferred, "Failback": failback }),
        ];
        spec.insert("Placement".into(), pick.of(&forms));
    }
    if pick.half() {
        let forms = [
            json!({}),
            json!({ "Profile": "Fast" }),
            json!({ "Profile": "Patient", "RenewSeconds": 1.5 }),
            json!({ "TtlSeconds": 8, "FenceAfterSeconds": 10.5 }),
            json!({ "TtlSeconds": 9.25, "FenceAfterSeconds": 12, "KillSeconds": 0.75 }),
        ];
        spec.insert("Availability".into(), pick.of(&forms));
    }
    if pick.half() {
        spec.insert("Fencing".into(), json!({ "Watchdog": pick.of(&["required", "automatic", "off"]) }));
    }
    if pick.half() {
        spec.insert("GuestPowerOff".into(), json!(pick.of(&["Restart", "StayOff"])));
    }
    if pick.half() {
        spec.insert("GuestShutdownSeconds".into(), pick.of(&[json!(10), json!(120), json!(300)]));
    }
    if nodes.is_multiple_of(2) || pick.half() {
        let many = if nodes > 5 { 5 } else { 3 };
        let servers: Vec<_> = (0..many).map(|at| format!("nfs-{}", nodes - at)).collect();
        spec.insert("Servers".into(), json!(servers));
    }
}
