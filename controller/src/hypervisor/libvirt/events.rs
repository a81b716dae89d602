//! Receives libvirt's events. This is the one file that calls libvirt without the safe binding, which has nothing for
//! them.
//!
//! The work inside a callback is bounded and never calls the daemon: it holds an object's UUID against ours, notes, and
//! counts.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use super::life::Life;

/// A bell that is rung when something about the VM may have changed.
#[derive(Debug)]
pub(super) struct Bell {
    uuid: Uuid,
    changes: watch::Sender<u64>,
    life: Life,
    catching_up: AtomicBool,
}

impl Bell {
    pub(super) fn new(uuid: Uuid) -> Self {
        Self {
            uuid,
            changes: watch::Sender::new(0),
            life: Life::default(),
            catching_up: AtomicBool::new(false),
        }
    }

    /// The events that the connection that is up has told.
    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    /// Begins with a new connection: nothing has been told on it yet.
    pub(super) fn begin(&self) {
        self.life.forget();
        self.catching_up.store(true, Ordering::SeqCst);
    }

    /// True on a connection whose daemon has not been seen to know which QEMUs are still there. One that was begun anew
    /// takes connections first, and tells nobody when it then finds that one is gone.
    pub(super) fn may_be_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::SeqCst)
    }

    pub(super) fn has_caught_up(&self) {
        self.catching_up.store(false, Ordering::SeqCst);
    }

    pub(super) fn ring(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The reason why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The daemon went away.
    Ended,
    /// The daemon did not answer the keepalive.
    KeepaliveLost,
    Failed,
}

impl Closed {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "libvirt's daemon closed the connection",
            Self::KeepaliveLost => "libvirt's daemon did not answer the keepalive",
            Self::Failed => "the connection to libvirt's daemon broke",
        }
    }

    fn from_raw(reason: c_int) -> Self {
        match u32::try_from(reason) {
            Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => Self::Ended,
            Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => Self::KeepaliveLost,
            Ok(_) | Err(_) => Self::Failed,
        }
    }
}

/// The receiver of what the callbacks of one connection tell.
#[derive(Debug)]
struct Listener {
    bell: Arc<Bell>,
    closed: watch::Sender<Option<Closed>>,
}

/// A connection whose events ring a bell, until it is dropped. Dropping it calls the daemon, and so may block.
#[derive(Debug)]
pub(super) struct Listening {
    connect: Connect,
    domain_events: Vec<c_int>,
}

/// Starts the loop that delivers the events of every connection of this process, once. Call it before the first
/// connection is opened: one opened earlier has no events and no keepalive.
pub(super) fn start_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(register_and_start).clone()
}

#[expect(unsafe_code, reason = "the binding has no safe form of libvirt's default event loop")]
fn register_and_start() -> Result<(), String> {
    // Errors are returned to whoever called; printed as well, they would end up in the journal without context.
    virt::error::clear_error_callback();
    // SAFETY: both may be called at any time from any thread and take no arguments; `start_loop` sees to it that
    // they are called once in the life of the process, before any connection is opened.
    let registered = unsafe { sys::virInitialize() == 0 && sys::virEventRegisterDefaultImpl() == 0 };
    if !registered {
        return Err(format!("libvirt's event loop cannot be set up: {}", Error::last_error().message()));
    }
    let started = thread::Builder::new().name("zsha-libvirt".to_owned()).spawn(|| {
        loop {
            // SAFETY: the default implementation was registered above, and this is the only thread that runs it.
            let ran = unsafe { sys::virEventRunDefaultImpl() };
            if ran < 0 {
                tracing::error!(error = %Error::last_error(), "libvirt's event loop failed; trying again");
                thread::park_timeout(Duration::from_secs(1));
            }
        }
    });
    started.map(drop).map_err(|error| format!("no thread for libvirt's event loop: {error}"))
}

/// The type through which libvirt takes the callbacks of all kinds of events.
type OnEvent = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// Asks for the events of a connection.
#[expect(unsafe_code, reason = "the binding has no safe form of registering callbacks")]
pub(super) fn listen(
    connect: Connect,
    bell: &Arc<Bell>,
    closed: &watch::Sender<Option<Closed>>,
) -> Result<Listening, Error> {
    bell.begin();
    let listener = Arc::new(Listener { bell: Arc::clone(bell), closed: closed.clone() });
    // Dropping it takes the registrations back that there are by then.
    let mut listening = Listening { connect, domain_events: Vec::new() };
    for (event, callback) in [
        (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle as *const ()),
        (sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, on_agent as *const ()),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, on_device as *const ()),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, on_device as *const ()),
        (sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, on_block_job as *const ()),
    ] {
        // SAFETY: libvirt hands each kind of event to a callback of the kind's own type, all of them passed through this
        // one, and casts back before it calls; each callback above has the type of its kind. The ABI is the same.
        let callback = unsafe { std::mem::transmute::<*const (), OnEvent>(callback) };
        let opaque = Arc::into_raw(Arc::clone(&listener)).cast_mut().cast::<c_void>();
        // SAFETY: the connection is alive as long as `listening`; no domain means every domain; `opaque` is a reference
        // count of the listener that `let_go` gives back when libvirt needs it no more.
        let registered = unsafe {
            sys::virConnectDomainEventRegisterAny(
                listening.connect.as_ptr(),
                std::ptr::null_mut(),
                event.cast_signed(),
                Some(callback),
                opaque,
                Some(let_go),
            )
        };
        if registered < 0 {
            let error = Error::last_error();
            // SAFETY: a registration that failed does not call `let_go`, so the count is still ours to give back.
            unsafe { let_go(opaque) };
            return Err(error);
        }
        listening.domain_events.push(registered);
    }
    let opaque = Arc::into_raw(listener).cast_mut().cast::<c_void>();
    // SAFETY: as above.
    let registered = unsafe {
        sys::virConnectRegisterCloseCallback(listening.connect.as_ptr(), Some(on_close), opaque, Some(let_go))
    };
    if registered < 0 {
        let error = Error::last_error();
        // SAFETY: as above.
        unsafe { let_go(opaque) };
        return Err(error);
    }
    Ok(listening)
}

impl Listening {
    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }
}

impl Drop for Listening {
    /// Ends the registrations. Each holds the connection open, so without this none would ever be closed.
    #[expect(unsafe_code, reason = "the binding has no safe form of taking callbacks back")]
    fn drop(&mut self) {
        let mut results = Vec::new();
        for registered in &self.domain_events {
            // SAFETY: the connection is alive as long as `self.connect`, and the number is one it gave out. Where it
            // has lost its daemon, or the close callback below was never registered, these fail and have no effect but
            // dropping what they know of us.
            results
                .push(unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *registered) });
        }
        // SAFETY: as above.
        results
            .push(unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) });
        tracing::debug!(?results, "stopped listening to a connection to libvirt");
    }
}

/// Ends the job under way on a domain, such as a migration.
#[expect(unsafe_code, reason = "the binding does not have it")]
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain's pointer is valid as long as `domain` is, and the call keeps nothing of it.
    match unsafe { sys::virDomainAbortJob(domain.as_ptr()) } {
        0 => Ok(()),
        _ => Err(Error::last_error()),
    }
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: what libvirt lends for the time of this call is handed on within it.
    unsafe { ring_if_ours(domain, opaque, |life| life.hear(event, detail)) };
    0
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_agent(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { ring_if_ours(domain, opaque, |_| {}) };
}

/// A device was attached or detached.
#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_device(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { ring_if_ours(domain, opaque, |_| {}) };
}

/// A job on a disk has come to another state: a commit or a copy is over, and the disk may be another now. Of a snapshot
/// libvirt tells nothing.
#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_block_job(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _target: *const c_char,
    _kind: c_int,
    _status: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { ring_if_ours(domain, opaque, |_| {}) };
}

#[expect(unsafe_code, reason = "for what is called by libvirt")]
unsafe fn ring_if_ours(domain: sys::virDomainPtr, opaque: *mut c_void, note: impl FnOnce(&Life)) {
    // SAFETY: `opaque` is the listener whose count was given to libvirt at registration and not yet taken back.
    let listener = unsafe { &*opaque.cast_const().cast::<Listener>() };
    let mut uuid = [0; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: libvirt lends a valid domain for the time of the call, and the buffer is as long as it says.
    // This one reads the object in hand; it does not call the daemon.
    let known = unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0;
    let ours = known && Uuid::from_bytes(uuid) == listener.bell.uuid;
    if ours {
        note(&listener.bell.life);
    }
    if ours || !known {
        listener.bell.ring();
    }
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn on_close(_connect: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    let listener = unsafe { &*opaque.cast_const().cast::<Listener>() };
    listener.closed.send_replace(Some(Closed::from_raw(reason)));
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn let_go(opaque: *mut c_void) {
    // SAFETY: every `opaque` came from `Arc::into_raw`, and libvirt calls this once for each.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<Listener>()) });
}
