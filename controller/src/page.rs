//! Serves the page beside the controller, on a thread and a runtime of its own, so that nothing that is done to the
//! page, and no failure of it, holds up a pass. Serving is tried again for ever; where it fails, that is told and
//! changes nothing else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use zsha_crds::EventReason;
use zsha_runtime::events::{Event, Recorder};

use crate::api::{self, Window};

/// The pause after which an address that is taken, or a process out of descriptors, is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Keeps the page served. Returns when it was told to stop.
pub async fn keep(
    address: SocketAddr,
    window: Window,
    recorder: Recorder,
    mut stopped: watch::Receiver<bool>,
) {
    let mut told = None;
    loop {
        let why = match life(address, window.clone(), until(stopped.clone())).await {
            Ok(()) if *stopped.borrow() => return,
            Ok(()) => "it ended by itself".to_owned(),
            Err(why) => why.to_string(),
        };
        if told.as_ref() != Some(&why) {
            let message = format!(
                "the page at {address} is not served: {why}. It is tried again every {} s; everything else goes on",
                AGAIN.as_secs()
            );
            tracing::warn!(message);
            recorder.publish(Event::new(EventReason::PageNotServed, "page", message));
            told = Some(why);
        }
        tokio::select! {
            biased;
            // A sender that is gone means the same.
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Runs the thread from its start to its end.
async fn life(
    address: SocketAddr,
    window: Window,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (tell, ended) = oneshot::channel();
    thread::Builder::new().name("zsha-page".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await?;
                tracing::info!(listen = %address, "page served");
                api::serve(listener, window, shutdown).await
            })
        });
        // Who asked may have stopped waiting; then the answer is for nobody.
        let _ = tell.send(served);
    })?;
    ended.await.unwrap_or_else(|_| Err(io::Error::other("it panicked")))
}
