//! The watchdog device of a simulated host. Like a real one it goes on counting whatever process opened it, and is off
//! after a reset.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use zsha_runtime::Clock;

use super::Watchdog;
use super::device::{Device, Stopped};
use super::petting::Watch;
use crate::keeper::enforce::Enforcement;

#[derive(Debug, Clone, Copy)]
struct Armed {
    timeout: Duration,
    petted: Instant,
}

#[derive(Debug, Default)]
pub struct SimulatedDevice {
    armed: Mutex<Option<Armed>>,
    /// The moment since when the whole host is suspended: the device does not count then.
    suspended: Mutex<Option<Instant>>,
    changed: Notify,
}

impl SimulatedDevice {
    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if it would reset the host some time when it is not petted any more.
    pub fn is_armed(&self) -> bool {
        self.armed().is_some()
    }

    /// Takes the power from the host, and from the device with it.
    pub fn lose_power(&self) {
        *self.armed() = None;
        *self.suspended() = None;
    }

    fn suspended(&self) -> MutexGuard<'_, Option<Instant>> {
        self.suspended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn suspend(&self) {
        self.suspended().get_or_insert_with(Instant::now);
    }

    pub fn wake(&self) {
        if let (Some(since), Some(armed)) = (self.suspended().take(), self.armed().as_mut()) {
            armed.petted += since.elapsed();
        }
        self.changed.notify_one();
    }

    /// Returns when the device was not petted for too long; it is off then.
    pub async fn bites(&self) {
        loop {
            let changed = self.changed.notified();
            let counting = self.armed().filter(|_| self.suspended().is_none());
            let Some(Armed { timeout, petted }) = counting else {
                changed.await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(petted + timeout) => {}
                // By another timeout it may come sooner.
                () = changed => continue,
            }
            let suspended = self.suspended().is_some();
            let mut armed = self.armed();
            if !suspended && armed.is_some_and(|armed| Instant::now() >= armed.petted + armed.timeout) {
                *armed = None;
                return;
            }
        }
    }
}

/// A keeper's handle on the device.
#[derive(Debug)]
struct Handle(Arc<SimulatedDevice>);

impl Device for Handle {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<Duration> {
        *self.0.armed() = Some(Armed { timeout, petted: Instant::now() });
        self.0.changed.notify_one();
        Ok(timeout)
    }

    fn pet(&mut self) -> io::Result<()> {
        if let Some(armed) = self.0.armed().as_mut() {
            armed.petted = Instant::now();
        }
        Ok(())
    }

    fn stop(&mut self) -> io::Result<Stopped> {
        self.0.lose_power();
        Ok(Stopped::Surely)
    }
}

/// The line to the watch over this device, and the watch as a task, for many hosts in one process.
pub fn watch(
    device: Arc<SimulatedDevice>,
    clock: Clock,
    enforcement: Arc<Enforcement>,
) -> (Watchdog, impl Future<Output = ()> + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let open = move || Ok(Box::new(Handle(Arc::clone(&device))) as Box<dyn Device>);
    let (mut watch, state) = Watch::new(Box::new(open), true);
    let watching = async move {
        loop {
            for what in told.try_iter() {
                watch.told(what);
            }
            let next = watch.look(clock.now(), &enforcement);
            clock.sleep_until(next).await;
        }
    };
    (Watchdog { tell: Some(tell), state, longest: None, wish: None }, watching)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn armed() -> (Arc<SimulatedDevice>, Handle) {
        let device = Arc::new(SimulatedDevice::default());
        let mut handle = Handle(Arc::clone(&device));
        handle.set_timeout(TIMEOUT).unwrap();
        (device, handle)
    }

    #[tokio::test(start_paused = true)]
    async fn it_bites_once_its_time_after_the_last_pet() {
        let (device, mut handle) = armed();
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle.pet().unwrap();
        let petted = Instant::now();
        device.bites().await;
        assert_eq!(petted.elapsed(), TIMEOUT);
        assert!(!device.is_armed());
    }

    #[tokio::test(start_paused = true)]
    async fn set_to_a_shorter_time_it_bites_after_that() {
        let (device, mut handle) = armed();
        handle.set_timeout(TIMEOUT * 5).unwrap();
        let bites = tokio::spawn({
            let device = Arc::clone(&device);
            async move { device.bites().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle.set_timeout(TIMEOUT).unwrap();
        let set = Instant::now();
        bites.await.unwrap();
        assert_eq!(set.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_count_while_its_host_is_suspended() {
        let (device, _handle) = armed();
        let begun = Instant::now();
        device.suspend();
        let bites = tokio::spawn({
            let device = Arc::clone(&device);
            async move { device.bites().await }
        });
        tokio::time::sleep(Duration::from_secs(9)).await;
        device.wake();
        bites.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(9) + TIMEOUT);
    }
}
