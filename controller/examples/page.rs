//! The page with canned states, to look at while changing it: `cargo run -p zsha-controller --no-default-features
//! --example page -- SCENE [PORT]`. It shows no cluster.
//!
//! Scenes: `healthy`, `failing`, `old` (nobody confirms the data any more), `nothing` (never read), `cycle` (healthy
//! and failing by turns).

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use zsha_controller::api::{self, HypervisorSight, Metrics, OwnNames, Snapshot, Window};
use zsha_crds::status::ClusterStatus;
use zsha_runtime::Clock;

const HEALTHY: &str = include_str!("../src/api/testdata/healthy.json");
const FAILING: &str = include_str!("../src/api/testdata/failing.json");
const CLOCK: Clock = Clock::Boottime;

fn showing(text: &str, age: Duration) -> anyhow::Result<Arc<Snapshot>> {
    let status: ClusterStatus = serde_json::from_str(text)?;
    Ok(Arc::new(Snapshot {
        status: Some(status),
        confirmed: Some(CLOCK.now() - age),
        hypervisor: HypervisorSight::Seen,
        ..Snapshot::default()
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let scene = arguments.next().unwrap_or_else(|| "healthy".to_owned());
    let port = arguments.next().unwrap_or_else(|| "7717".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.context("listening")?;
    println!("http://{}/", listener.local_addr()?);
    let (sender, feed) = watch::channel(Arc::default());
    let window =
        Window { feed, metrics: Arc::new(Metrics::default()), clock: CLOCK, own_names: OwnNames::default() };
    tokio::spawn(api::serve(listener, window, pending()));
    let mut turn = tokio::time::interval(Duration::from_secs(4));
    for text in [HEALTHY, FAILING].into_iter().cycle() {
        turn.tick().await;
        let snapshot = match scene.as_str() {
            "healthy" => showing(HEALTHY, Duration::ZERO)?,
            "failing" => showing(FAILING, Duration::ZERO)?,
            "cycle" => showing(text, Duration::ZERO)?,
            "old" if sender.borrow().status.is_some() => continue,
            "old" => showing(HEALTHY, Duration::from_secs(75))?,
            "nothing" => Arc::default(),
            other => bail!("there is no scene '{other}'"),
        };
        sender.send_replace(snapshot);
    }
    Ok(())
}
