//! Tests how the keeper takes a look at the processes that comes too early, or fails.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::hypervisor::OffReason;
use crate::hypervisor::libvirt_log::UNREAD_PATIENCE;
use crate::keeper::copies::VmCopy;

/// The reasons why the end of the last copy cannot be read.
#[derive(Debug, Clone, Copy)]
enum Unread {
    /// The kernel said so, about the storage or about this process.
    Errno(i32),
    /// This process had no answer within the time it gives.
    NotInTime,
}

const ENOENT: i32 = 2;

/// A process table that cannot be read, or in which a start that still found the lease valid shows only once that is
/// withdrawn.
#[derive(Debug, Default)]
struct Table {
    enforcement: Arc<Enforcement>,
    unreadable: AtomicBool,
    started: AtomicBool,
    killed: AtomicBool,
    /// Further copies, which die when they are killed.
    further: Mutex<Vec<VmCopy>>,
    /// The end of the last copy, or why it cannot be read.
    ended: Mutex<Option<OffReason>>,
    unread: Mutex<Option<Unread>>,
    /// The end of the copy before the present one.
    ended_before: Mutex<Option<OffReason>>,
}

impl Copies for Table {
    fn alive(&self) -> io::Result<Vec<VmCopy>> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("the table cannot be read"));
        }
        let shows = self.started.load(Ordering::SeqCst) && self.enforcement.deadline().is_none();
        let there = shows && !self.killed.load(Ordering::SeqCst);
        let further = self.further.lock().unwrap().clone();
        Ok(there.then(|| VmCopy::numbered(1)).into_iter().chain(further).collect())
    }

    fn kill(&self, copy: &VmCopy) -> io::Result<()> {
        self.killed.store(true, Ordering::SeqCst);
        self.further.lock().unwrap().retain(|there| !there.is_same_as(copy));
        Ok(())
    }

    fn last_end(&self) -> io::Result<Option<OffReason>> {
        match *self.unread.lock().unwrap() {
            Some(Unread::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Unread::NotInTime) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 0 s")),
            None => Ok(*self.ended.lock().unwrap()),
        }
    }

    fn end_before_this(&self) -> io::Result<Option<OffReason>> {
        match *self.unread.lock().unwrap() {
            Some(_) => Err(io::Error::from_raw_os_error(ENOENT)),
            None => Ok(*self.ended_before.lock().unwrap()),
        }
    }
}

/// A store that notes whether the lease was released with a copy alive.
#[derive(Debug)]
struct Beside {
    inner: MemoryStore,
    table: Arc<Table>,
    released_beside_a_copy: AtomicBool,
}

#[async_trait]
impl Store for Beside {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key, read).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.inner.list(prefix, read).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.inner.watch(prefix, after, wait).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        let releases = crate::sim::node_store::renewed(&ops, "zsha/c/leases/n1")
            .is_some_and(|record| record.state == LeaseState::Released);
        if releases && !self.table.alive().unwrap().is_empty() {
            self.released_beside_a_copy.store(true, Ordering::SeqCst);
        }
        self.inner.txn(ops).await
    }
}

struct Rig {
    table: Arc<Table>,
    store: Arc<Beside>,
    notebook: Arc<Mutex<Option<Memory>>>,
    began: Instant,
    line: LocalLease,
    keeper: tokio::task::JoinHandle<()>,
}

fn rig() -> Rig {
    let enforcement = Arc::new(Enforcement::default());
    let table = Arc::new(Table { enforcement, ..Table::default() });
    let store = Arc::new(Beside {
        inner: MemoryStore::new(),
        table: Arc::clone(&table),
        released_beside_a_copy: AtomicBool::new(false),
    });
    keeper(table, store, Arc::default(), Instant::now())
}

/// Puts another keeper in the place of this one, with what that had kept.
fn restarted(rig: Rig) -> Rig {
    rig.keeper.abort();
    keeper(rig.table, rig.store, rig.notebook, rig.began)
}

fn keeper(
    table: Arc<Table>,
    store: Arc<Beside>,
    notebook: Arc<Mutex<Option<Memory>>>,
    began: Instant,
) -> Rig {
    let mut lives = 0;
    let settings = RenewSettings {
        identity: Identity {
            vm: VmName::management(),
            cluster: zsha_crds::ClusterName::new("c").unwrap(),
            node: name(),
            key: "zsha/c/leases/n1".to_owned(),
            machine_id: "machine".to_owned(),
            boot_id: "boot".to_owned(),
        },
        timings: TIMINGS,
        may_be_paused: false,
        clock: Clock::Tokio { start: began, rate_ppm: 0 },
        store: Arc::clone(&store) as Arc<dyn Store>,
        looking: Looking::Inline(Arc::clone(&table) as Arc<dyn Copies>),
        enforcement: Arc::clone(&table.enforcement),
        notebook: Notebook::Shared(Arc::clone(&notebook)),
        watchdog: Watchdog::none(),
        incarnations: Box::new(move || {
            lives += 1;
            Uuid::from_u128(lives)
        }),
    };
    let (line, run) = in_process(settings, Arc::clone(&table) as Arc<dyn Copies>);
    Rig { table, store, notebook, began, line, keeper: tokio::spawn(run) }
}

fn moved_away_in(lease: &LeaseRecord) -> Option<u64> {
    lease.vms.of(&VmName::management()).moved_away_in
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_released_only_when_nobody_is_seen_after_no_start_can_find_it_valid() {
    let rig = rig();
    pass(TIMINGS.renew() * 3).await;
    rig.table.started.store(true, Ordering::SeqCst);
    rig.line.release().await.unwrap();
    assert!(rig.table.killed.load(Ordering::SeqCst), "what was started meanwhile is ended");
    assert!(!rig.store.released_beside_a_copy.load(Ordering::SeqCst));
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_process_table_that_cannot_be_read_shows_in_the_record_as_unknown() {
    let rig = rig();
    let said = || {
        let entry = rig.store.inner.read("zsha/c/leases/n1")?;
        serde_json::from_str::<LeaseRecord>(&entry.value).ok()?.copies(&VmName::management())
    };
    pass(TIMINGS.renew() * 3).await;
    assert_eq!(said(), Some(0));
    rig.table.unreadable.store(true, Ordering::SeqCst);
    pass(TIMINGS.renew() * 3).await;
    assert_eq!(said(), None);
    rig.keeper.abort();
}

fn process(number: u64) -> VmCopy {
    let mut process = VmCopy::numbered(number);
    process.started = Some(number);
    process
}

#[tokio::test(start_paused = true)]
async fn a_second_copy_beside_the_own_is_ended_and_the_own_is_not() {
    let rig = rig();
    let there = || rig.table.further.lock().unwrap().iter().map(|copy| copy.process).collect::<Vec<_>>();
    pass(TIMINGS.renew() * 3).await;
    rig.line.expect(Expectation::Own).await.unwrap();
    rig.table.further.lock().unwrap().push(process(7));
    pass(TIMINGS.renew() * 3).await;
    assert_eq!(there(), [7]);
    rig.table.further.lock().unwrap().insert(0, process(8));
    pass(TIMINGS.renew() * 2 + Duration::from_millis(1)).await;
    assert_eq!(there(), [7]);
    assert_eq!(rig.line.verdict().await.unwrap().unexpected.unwrap().count, 1);
    rig.keeper.abort();
}

/// The controller would have written down that the VM is gone, but it is down.
#[tokio::test(start_paused = true)]
async fn a_vm_that_was_moved_away_by_hand_is_not_set_free_like_one_that_has_died() {
    const EIO: i32 = 5;
    const EMFILE: i32 = 24;
    const ETIMEDOUT: i32 = 110;
    for (ended, unread, moved) in [
        (OffReason::Migrated, None, true),
        (OffReason::Died, None, false),
        (OffReason::Died, Some(Unread::Errno(EMFILE)), true),
        (OffReason::Migrated, Some(Unread::NotInTime), true),
        (OffReason::Died, Some(Unread::Errno(EIO)), false),
        (OffReason::Died, Some(Unread::Errno(ETIMEDOUT)), false),
        // No copy was ever seen here, so there is no log.
        (OffReason::Died, Some(Unread::Errno(ENOENT)), false),
    ] {
        let rig = rig();
        pass(TIMINGS.renew() * 3).await;
        let epoch = lease(&rig).epoch;
        rig.line.expect(Expectation::Own).await.unwrap();
        // A controller that was started since, and is gone again.
        rig.line.expect(Expectation::Nothing).await.unwrap();
        *rig.table.ended.lock().unwrap() = Some(ended);
        *rig.table.unread.lock().unwrap() = unread;
        pass(Duration::from_secs(60)).await;
        if matches!(unread, Some(Unread::NotInTime)) {
            assert_eq!(lease(&rig).epoch, epoch, "it may say so yet");
            pass(UNREAD_PATIENCE).await;
        }
        let record = lease(&rig);
        assert!(record.epoch > epoch, "{ended:?}, {unread:?}");
        assert_eq!(moved_away_in(&record), moved.then_some(epoch), "{ended:?}, {unread:?}");
        rig.keeper.abort();
    }
}

/// The log was removed, or another directory is set: a copy that was here has left a log.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_there_does_not_say_that_the_vm_has_died() {
    for anew in [false, true] {
        let mut rig = rig();
        pass(TIMINGS.renew() * 3).await;
        rig.line.expect(Expectation::Own).await.unwrap();
        rig.table.further.lock().unwrap().push(process(7));
        pass(TIMINGS.renew() * 2).await;
        if anew {
            rig = restarted(rig);
        }
        let epoch = lease(&rig).epoch;
        rig.table.further.lock().unwrap().clear();
        *rig.table.unread.lock().unwrap() = Some(Unread::Errno(ENOENT));
        pass(Duration::from_secs(60)).await;
        assert_eq!(moved_away_in(&lease(&rig)), Some(epoch), "anew: {anew}");
        rig.keeper.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_started_by_hand_where_the_own_copy_has_left_is_ended_also_without_a_controller() {
    let there =
        |rig: &Rig| rig.table.further.lock().unwrap().iter().map(|copy| copy.process).collect::<Vec<_>>();
    let put = |rig: &Rig, numbers: &[u64]| {
        *rig.table.further.lock().unwrap() = numbers.iter().map(|number| process(*number)).collect();
    };
    for (before, unread, controller, is_ended) in [
        (Some(OffReason::Migrated), None, false, true),
        (Some(OffReason::Migrated), None, true, false),
        (Some(OffReason::Destroyed), None, false, false),
        (None, None, false, false),
        (Some(OffReason::Migrated), Some(Unread::Errno(ENOENT)), false, false),
    ] {
        for seen_gone in [false, true] {
            let case = format!("{before:?}, {unread:?}, controller: {controller}, seen gone: {seen_gone}");
            let rig = rig();
            pass(TIMINGS.renew() * 3).await;
            rig.line.expect(Expectation::Own).await.unwrap();
            put(&rig, &[7]);
            pass(CONTROLLER_SILENCE + TIMINGS.renew()).await;
            assert_eq!(there(&rig), [7]);
            if controller {
                rig.line.verdict().await.unwrap();
            }
            *rig.table.unread.lock().unwrap() = unread;
            *rig.table.ended.lock().unwrap() = before;
            *rig.table.ended_before.lock().unwrap() = before;
            if seen_gone {
                put(&rig, &[]);
                pass(TIMINGS.renew()).await;
            }
            for number in [8, 9] {
                put(&rig, &[number]);
                pass(TIMINGS.renew() * 2).await;
                let left: &[u64] = if is_ended { &[] } else { &[number] };
                assert_eq!(there(&rig), left, "{case}");
                // The one that was ended is the last that the log has.
                *rig.table.ended_before.lock().unwrap() = Some(OffReason::Died);
            }
            rig.line.expect(Expectation::Own).await.unwrap();
            put(&rig, &[10]);
            pass(CONTROLLER_SILENCE * 2).await;
            assert_eq!(there(&rig), [10], "the controller has said so anew: {case}");
            rig.keeper.abort();
        }
    }
}

fn lease(rig: &Rig) -> LeaseRecord {
    let entry = rig.store.inner.read("zsha/c/leases/n1").unwrap();
    serde_json::from_str(&entry.value).unwrap()
}

/// An upgrade, a move by hand, and a controller that was started and is gone again.
#[tokio::test(start_paused = true)]
async fn a_keeper_that_is_started_anew_knows_that_the_own_copy_was_to_be_here() {
    let rig = rig();
    pass(TIMINGS.renew() * 3).await;
    rig.line.expect(Expectation::Own).await.unwrap();
    let rig = restarted(rig);
    pass(TIMINGS.renew()).await;
    let epoch = lease(&rig).epoch;
    rig.line.expect(Expectation::Nothing).await.unwrap();
    let rig = restarted(rig);
    *rig.table.ended.lock().unwrap() = Some(OffReason::Migrated);
    pass(Duration::from_secs(60)).await;
    assert_eq!(moved_away_in(&lease(&rig)), Some(epoch));
}

#[test]
fn a_life_in_which_the_own_copy_was_to_be_here_is_remembered_whatever_is_said_next() {
    let life = Uuid::from_u128(3);
    let said = |what| owned(&Expected { incarnation: life, what });
    for what in [Expectation::Own, Expectation::Unsaid] {
        assert_eq!(said(what), Some(life), "{what:?}");
    }
    for what in [Expectation::Nothing, Expectation::Arrival] {
        assert_eq!(said(what), None, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_its_time_to_say_that_it_is_dead_sets_the_vm_free() {
    let rig = rig();
    pass(TIMINGS.renew() * 3).await;
    let epoch = lease(&rig).epoch;
    rig.line.expect(Expectation::Own).await.unwrap();
    *rig.table.ended.lock().unwrap() = Some(OffReason::Died);
    *rig.table.unread.lock().unwrap() = Some(Unread::NotInTime);
    pass(Duration::from_secs(60)).await;
    assert_eq!(lease(&rig).epoch, epoch);
    *rig.table.unread.lock().unwrap() = Some(Unread::Errno(5));
    pass(TIMINGS.renew() * 3).await;
    assert!(lease(&rig).epoch > epoch);
    assert_eq!(moved_away_in(&lease(&rig)), None);
    rig.keeper.abort();
}
