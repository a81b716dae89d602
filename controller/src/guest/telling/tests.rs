//! When the guest is told, in virtual time.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Answers as it is set, and counts.
#[derive(Debug)]
struct Guest {
    answer: Mutex<Result<GuestRan, HypervisorError>>,
    asked: AtomicU32,
    changes: watch::Sender<u64>,
}

impl Guest {
    fn silent() -> Arc<Self> {
        let reason = "QEMU guest agent is not connected".to_owned();
        let answer = Mutex::new(Err(HypervisorError::Refused { operation: "run in the guest", reason }));
        Arc::new(Self { answer, asked: AtomicU32::new(0), changes: watch::Sender::new(0) })
    }

    fn answers(&self, said: &str) {
        *self.answer.lock().unwrap() = Ok(GuestRan::Printed(said.to_owned()));
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn run(&self, script: &str) -> Result<GuestRan, HypervisorError> {
        assert!(script.contains("10.0.0.53"), "{script}");
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer.lock().unwrap().clone()
    }
}

fn ask() -> Ask {
    let dns = vec!["10.0.0.53".parse().unwrap()];
    let config = GuestConfig { nics: vec![], dns, time_servers: vec![], console_proxy: None };
    Ask { vm: VmName::management(), config }
}

/// Somebody tells, and keeps what came of it.
fn telling(guest: &Arc<Guest>) -> (Arc<Telling>, Arc<Mutex<Vec<Told>>>) {
    let (telling, heard) = (Arc::new(Telling::default()), Arc::new(Mutex::new(Vec::new())));
    let (shared, guest, news) = (Arc::clone(&telling), Arc::clone(guest), Arc::clone(&heard));
    tokio::spawn(async move {
        let run = |script: String| std::future::ready(guest.run(&script));
        tell(&shared, run, guest.changes.subscribe(), |told| news.lock().unwrap().push(told.clone())).await;
    });
    (telling, heard)
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_nothing_that_runs_here_is_ours() {
    let guest = Guest::silent();
    let (telling, _) = telling(&guest);
    pass(100).await;
    guest.changes.send_modify(|count| *count += 1);
    pass(1).await;
    assert_eq!((guest.asked(), telling.told()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_silent_guest_is_asked_ever_more_rarely_and_at_once_when_its_agent_comes() {
    let guest = Guest::silent();
    let (telling, heard) = telling(&guest);
    telling.want(Some(ask()));
    pass(600).await;
    // After 0, 5, 15, 35, 75 seconds, and then once a minute.
    assert_eq!(guest.asked(), 13);
    assert_eq!(heard.lock().unwrap().len(), 1, "one silence is one piece of news");
    guest.answers("applied mnvm-1");
    guest.changes.send_modify(|count| *count += 1);
    pass(1).await;
    assert_eq!(
        telling.told(),
        Some(Told::Applied { id: "mnvm-1".to_owned(), anew: true, but: String::new() })
    );
    pass(600).await;
    assert_eq!(guest.asked(), 14, "who has been told is left in peace");
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_vm_it_is_asked_again_and_only_a_new_boot_is_news() {
    let guest = Guest::silent();
    guest.answers("applied mnvm-1");
    let (telling, heard) = telling(&guest);
    telling.want(Some(ask()));
    pass(1).await;
    guest.answers("already mnvm-1");
    guest.changes.send_modify(|count| *count += 1);
    pass(1).await;
    assert_eq!((guest.asked(), heard.lock().unwrap().len()), (2, 1));
    guest.answers("applied mnvm-1");
    guest.changes.send_modify(|count| *count += 1);
    pass(1).await;
    assert_eq!((guest.asked(), heard.lock().unwrap().len()), (3, 2), "it has booted anew");
    // The VM is elsewhere: what was told here says nothing any more.
    telling.want(None);
    assert_eq!(telling.told(), None);
    telling.want(Some(ask()));
    pass(1).await;
    assert_eq!((guest.asked(), heard.lock().unwrap().len()), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn what_comes_of_it_after_the_vm_has_gone_says_nothing_of_the_next() {
    let telling = Telling::default();
    telling.want(Some(ask()));
    let asked = telling.wanted.borrow().clone().unwrap();
    telling.want(None);
    assert!(!telling.put(&asked, Told::CloudInit), "it is no news");
    telling.want(Some(ask()));
    assert_eq!(telling.told(), None);
}
