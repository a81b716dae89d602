//! Tests what a host says as it shuts down, and what it waits for, on a store in memory.

use jiff::Timestamp;
use uuid::Uuid;
use zsha_crds::records::{LeaseRecord, LeaseState, Migration, Owner, VmPhase};
use zsha_crds::{ClusterName, VmId, VmName};
use zsha_runtime::store::MemoryStore;

use super::decide::Place;
use super::host::UNREAD;
use super::*;
use crate::embedded::Machine;
use crate::hypervisor::simulated::SimulatedHosts;

fn host(boot_id: &str) -> Host {
    Host { node: NodeName::new("nfs-1").unwrap(), boot_id: boot_id.to_owned() }
}

fn keys() -> Keys {
    Keys::new(&ClusterName::new("prod").unwrap())
}

fn owner(node: &str) -> Owner {
    Owner { node: NodeName::new(node).unwrap(), epoch: 1 }
}

fn vm_of(node: &str) -> VmRecord {
    let vm = VmId::of(&ClusterName::new("prod").unwrap());
    VmRecord { owner: Some(owner(node)), ..VmRecord::unplaced(vm) }
}

async fn write<T: serde::Serialize>(store: &MemoryStore, key: String, value: &T) {
    let there = store.get(&key, Read::Consistent).await.unwrap();
    assert!(put(store, key, serde_json::to_string(value).unwrap(), there).await.unwrap());
}

async fn put_vm(store: &MemoryStore, vm: &VmRecord) {
    write(store, keys().vm(&VmName::management()), vm).await;
}

async fn drain_in(store: &MemoryStore) -> Intent {
    let key = keys().intent(&Intent::drain_of(&host("a").node));
    serde_json::from_str(&store.get(&key, Read::Consistent).await.unwrap().unwrap().value).unwrap()
}

fn by_ann(shutdown: Option<HostShutdown>) -> Intent {
    Intent::Drain {
        by: "ann@desk".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        message: "new memory".to_owned(),
        shutdown,
    }
}

fn in_boot(boot_id: &str, no_time_to_move: bool) -> HostShutdown {
    HostShutdown { boot_id: boot_id.to_owned(), no_time_to_move }
}

/// The host nfs-1 in its boot a, whose keeper nobody has started.
fn leaving(store: &MemoryStore) -> Leaving {
    with_its_keeper(store).0
}

/// The same, and what runs its keeper.
fn with_its_keeper(store: &MemoryStore) -> (Leaving, impl Future<Output = ()> + Send + use<>) {
    let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
    let cluster = ClusterName::new("prod").unwrap();
    let hosts = SimulatedHosts::new(VmId::of(&cluster));
    let machine = Machine::new(cluster.clone(), host("a").node, clock, Arc::new(store.clone()), hosts);
    let (line, keeper) = machine.keeper();
    let leaving = Leaving {
        host: host("a"),
        cluster,
        keys: keys(),
        clock,
        store: Arc::new(store.clone()),
        lease: Arc::new(line),
        hypervisor: None,
    };
    (leaving, keeper)
}

/// Others need not wait for it to run out, and are told that it was switched off in order.
#[tokio::test(start_paused = true)]
async fn a_host_that_goes_down_gives_its_lease_up() {
    let store = MemoryStore::new();
    put_vm(&store, &vm_of("nfs-2")).await;
    let (leaving, keeper) = with_its_keeper(&store);
    let keeper = tokio::spawn(keeper);
    while !leaving.lease.verdict().await.unwrap().valid(leaving.clock.now()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    leaving.until_it_may_go_down(Duration::from_secs(60)).await.unwrap();
    leaving.give_up_the_lease().await;
    let entry = store.get(&keys().lease(&host("a").node), Read::Consistent).await.unwrap().unwrap();
    let lease = LeaseRecord::read(&entry.value, &host("a").node, &ClusterName::new("prod").unwrap()).unwrap();
    assert_eq!(lease.state, LeaseState::Released);
    keeper.abort();
}

#[test]
fn a_vm_that_is_owned_here_or_on_its_way_here_has_not_left() {
    let host = host("a");
    assert_eq!(host.place(&vm_of("nfs-1")), Place::Here);
    assert_eq!(host.place(&vm_of("nfs-2")), Place::NotHere);
    let arriving =
        VmRecord { migration: Some(Migration { to: owner("nfs-1"), id: Uuid::nil() }), ..vm_of("nfs-2") };
    assert_eq!(host.place(&arriving), Place::OnItsWayHere);
    assert_eq!(host.place(&VmRecord { owner: None, ..vm_of("nfs-1") }), Place::NotHere, "it runs nowhere");
}

#[tokio::test(start_paused = true)]
async fn a_host_is_drained_until_it_has_booted_again() {
    let store = MemoryStore::new();
    put_vm(&store, &vm_of("nfs-1")).await;
    let leaving = leaving(&store);
    let moved = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let Intent::Drain { shutdown, .. } = drain_in(&store).await else { panic!("it is not drained") };
        assert_eq!(shutdown, Some(in_boot("a", false)));
        put_vm(&store, &vm_of("nfs-2")).await;
    };
    let (done, ()) = tokio::join!(leaving.until_it_may_go_down(Duration::from_secs(600)), moved);
    done.unwrap();

    back(&host("a"), &keys(), &store, None).await;
    assert!(matches!(drain_in(&store).await, Intent::Drain { .. }), "a controller that was only restarted");
    back(&host("b"), &keys(), &store, None).await;
    assert_eq!(drain_in(&store).await, Intent::None);
}

/// `systemctl soft-reboot` keeps the kernel, and its name for the boot; so does a shutdown that is called off.
#[tokio::test(start_paused = true)]
async fn what_a_host_said_in_this_very_boot_is_taken_back_where_systemd_has_it_up() {
    let store = MemoryStore::new();
    put_vm(&store, &vm_of("nfs-2")).await;
    leaving(&store).until_it_may_go_down(Duration::from_secs(60)).await.unwrap();
    back(&host("a"), &keys(), &store, None).await;
    assert!(matches!(drain_in(&store).await, Intent::Drain { .. }), "it may still go down");
    let (a, under) = (host("a"), keys());
    let stays = back(&a, &under, &store, Some(|| false));
    assert!(tokio::time::timeout(Duration::from_secs(60), stays).await.is_err(), "it is asked again");
    assert!(matches!(drain_in(&store).await, Intent::Drain { .. }), "systemd does not have it up yet");
    back(&host("a"), &keys(), &store, Some(|| true)).await;
    assert_eq!(drain_in(&store).await, Intent::None);
    write(&store, keys().intent(&Intent::drain_of(&host("a").node)), &by_ann(Some(in_boot("a", true)))).await;
    back(&host("a"), &keys(), &store, Some(|| true)).await;
    assert_eq!(drain_in(&store).await, by_ann(None));
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_asked_for_stays_beside_what_the_host_says() {
    let store = MemoryStore::new();
    put_vm(&store, &vm_of("nfs-2")).await;
    write(&store, keys().intent(&Intent::drain_of(&host("a").node)), &by_ann(None)).await;
    leaving(&store).until_it_may_go_down(Duration::from_secs(60)).await.unwrap();
    assert_eq!(drain_in(&store).await, by_ann(Some(in_boot("a", false))));
    back(&host("b"), &keys(), &store, None).await;
    assert_eq!(drain_in(&store).await, by_ann(None));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_cannot_leave_is_said_so_in_time() {
    let store = MemoryStore::new();
    put_vm(&store, &vm_of("nfs-1")).await;
    let leaving = leaving(&store);
    let began = leaving.clock.now();
    let told = async {
        tokio::time::sleep(Duration::from_secs(300 - 120 - 20 + 2)).await;
        let Intent::Drain { shutdown, .. } = drain_in(&store).await else { panic!("it is not drained") };
        assert_eq!(shutdown, Some(in_boot("a", true)), "the guest needs what is left");
    };
    let (left, ()) = tokio::join!(leaving.until_it_may_go_down(Duration::from_secs(300)), told);
    let error = left.unwrap_err().to_string();
    assert!(error.starts_with("nfs-1 goes down after 300 s: the VM is still on it"), "{error}");
    assert!(began.until(leaving.clock.now()) < Duration::from_secs(302));
}

/// No controller can act on it, and who knows that the host shuts down shuts the guest down in order.
#[tokio::test(start_paused = true)]
async fn an_order_that_cannot_be_read_gives_way_to_a_drain_that_outlasts_the_boot() {
    let drain = |shutdown| Intent::Drain {
        by: UNREAD.to_owned(),
        at: Timestamp::UNIX_EPOCH,
        message: "`zsha uncordon nfs-1` clears it".to_owned(),
        shutdown,
    };
    let at_no_time = |intent| match intent {
        Intent::Drain { by, message, shutdown, .. } => {
            Intent::Drain { by, at: Timestamp::UNIX_EPOCH, message, shutdown }
        }
        other => other,
    };
    let freeze = Intent::Freeze { by: "ann".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
    for before in ["\"soon\"".to_owned(), serde_json::to_string(&freeze).unwrap()] {
        let store = MemoryStore::new();
        put_vm(&store, &vm_of("nfs-2")).await;
        let key = keys().intent(&Intent::drain_of(&host("a").node));
        assert!(put(&store, key, before.clone(), None).await.unwrap());
        leaving(&store).until_it_may_go_down(Duration::from_secs(3)).await.unwrap();
        assert_eq!(at_no_time(drain_in(&store).await), drain(Some(in_boot("a", false))), "{before}");
        back(&host("b"), &keys(), &store, None).await;
        assert_eq!(
            at_no_time(drain_in(&store).await),
            drain(None),
            "it is given nothing until it is cleared"
        );
    }
}

/// The quorum must not go before the guest is off.
#[tokio::test(start_paused = true)]
async fn a_host_without_the_vm_waits_for_the_one_that_shuts_down_with_it() {
    let store = MemoryStore::new();
    put_vm(&store, &vm_of("nfs-2")).await;
    let lease = |boot: &str, seq| LeaseRecord {
        boot_id: boot.to_owned(),
        seq,
        ..LeaseRecord::lost(&owner("nfs-2"), Timestamp::UNIX_EPOCH)
    };
    let said = Intent::Drain {
        by: "nfs-2 itself (boot x)".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        message: String::new(),
        shutdown: Some(in_boot("x", false)),
    };
    write(&store, keys().intent(&Intent::drain_of(&owner("nfs-2").node)), &said).await;
    write(&store, keys().lease(&owner("nfs-2").node), &lease("later", 0)).await;
    let leaving = leaving(&store);
    let began = leaving.clock.now();
    leaving.until_it_may_go_down(Duration::from_secs(600)).await.unwrap();
    assert_eq!(began.until(leaving.clock.now()), Duration::ZERO, "nfs-2 has booted since it said so");

    write(&store, keys().lease(&owner("nfs-2").node), &lease("x", 0)).await;
    let powers_off = async {
        for seq in 1..=50 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            write(&store, keys().lease(&owner("nfs-2").node), &lease("x", seq)).await;
        }
        put_vm(&store, &VmRecord { owner: None, phase: VmPhase::Stopped, ..vm_of("nfs-2") }).await;
    };
    let (left, ()) = tokio::join!(leaving.until_it_may_go_down(Duration::from_secs(600)), powers_off);
    left.unwrap();
    let took = began.until(leaving.clock.now());
    assert!((Duration::from_secs(50)..Duration::from_secs(53)).contains(&took), "{took:?}");
}
