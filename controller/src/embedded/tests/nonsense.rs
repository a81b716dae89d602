//! Every record that a node reads, written over with every kind of nonsense by somebody with the store's own tools.

use super::*;

/// Past every deadline of the lease, and every look.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

/// The values that are written over a good one.
fn kinds(good: Option<&str>) -> Vec<(&'static str, String)> {
    let mut kinds = vec![
        ("text", "garbage".to_owned()),
        ("nothing", String::new()),
        ("an empty object", "{}".to_owned()),
        (
            "of a later format",
            r#"{"format":2,"kind":"Later","node":"nfs-1","machineId":"machine-of-nfs-1"}"#.to_owned(),
        ),
        ("512 KiB", format!("\"{}\"", "x".repeat(512 * 1024))),
    ];
    if let Some(good) = good {
        kinds.push(("counted too far", good.replace("\"epoch\":1", &format!("\"epoch\":{}", u64::MAX))));
        kinds.push(("of another node", good.replace("nfs-1", "of-another-cluster")));
        let uuid = "00000000-0000-0000-0000-000000000000";
        let vm = VmName::management().domain_uuid(example().name()).to_string();
        kinds.push(("of another cluster", good.replace(&vm, uuid).replace("machine-of-nfs-1", "machine-2")));
    }
    kinds
}

/// The VM's process is the same, and the one there ever was.
async fn goes_on(node: &OneNode, what: &str) {
    let before = node.machine.hosts.copies();
    assert_eq!(before.len(), 1, "{what}");
    sleep(LONG_ENOUGH).await;
    assert_eq!(node.machine.hosts.copies(), before, "{what}: {:#?}", node.status_text());
}

impl OneNode {
    fn value(&self, key: &str) -> Option<String> {
        self.store.read(key).map(|entry| entry.value)
    }

    fn status_text(&self) -> Option<String> {
        self.value(&self.keys.node_status(&self.machine.name))
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_node_keeps_is_written_again_over_nonsense_and_the_vm_goes_on() {
    let node = OneNode::running().await;
    let (me, vm) = (node.machine.name.clone(), VmName::management());
    let mended =
        [node.keys.lease(&me), node.keys.vm(&vm), node.keys.node_status(&me), node.keys.vm_status(&vm)];
    let epoch = || {
        let lease = node.value(&node.keys.lease(&me)).unwrap();
        serde_json::from_str::<Value>(&lease).unwrap()["epoch"].clone()
    };
    let before = epoch();
    for key in mended {
        let good = node.value(&key).unwrap();
        // A record that says in due form who else has the VM is none.
        let is_nonsense = |kind: &str| kind != "of another node" || key != node.keys.vm(&vm);
        let kinds = kinds(Some(&good)).into_iter().filter(|(_, value)| *value != good);
        for (kind, value) in kinds.filter(|(kind, _)| is_nonsense(kind)) {
            node.store.overwrite(&key, &value);
            goes_on(&node, &format!("{key}: {kind}")).await;
            let now = node.value(&key).unwrap();
            assert_ne!(now, value, "{key}: {kind}");
            let fields = |text: &str| serde_json::from_str::<Value>(text).unwrap().as_object().unwrap().len();
            assert_eq!(fields(&now), fields(&good), "{key}: {kind}: {now}");
        }
    }
    assert_eq!(epoch(), before, "its life went on");
}

#[tokio::test(start_paused = true)]
async fn nonsense_under_what_others_write_starts_ends_and_hides_nothing() {
    let node = OneNode::running().await;
    let other = NodeName::new("nfs-2").unwrap();
    let keys = [
        node.keys.lease(&other),
        node.keys.node_status(&other),
        node.keys.intent(Intent::POWER),
        node.keys.intent(Intent::FREEZE),
        node.keys.intent(Intent::MIGRATE),
        node.keys.intent(Intent::RESET_PASSWORD),
        node.keys.intent(&Intent::drain_of(&node.machine.name)),
        node.keys.intent(&Intent::drain_of(&other)),
        node.keys.spec(),
        node.keys.history_of(1),
        node.keys.history_of(u64::MAX),
        format!("{}nonsense", node.keys.events_of(&node.machine.name)),
        format!("{}No Node", node.keys.leases()),
    ];
    for key in keys {
        let good = node.value(&key);
        for (kind, value) in kinds(None) {
            node.store.overwrite(&key, &value);
            goes_on(&node, &format!("{key}: {kind}")).await;
            assert!(node.status_text().unwrap().len() < 16 * 1024, "{key}: {kind}: it is told in a sentence");
        }
        // As an operator mends it.
        match good {
            Some(good) => node.store.overwrite(&key, &good),
            None => {
                let index = node.store.index_of(&key).unwrap();
                assert!(node.store.apply(&[Op::DeleteCas { key, index }]).unwrap().committed());
            }
        }
    }
    node.until(|node| node.observes(1)).await;
}
