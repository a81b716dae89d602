//! Measures what keeper and controller cost on each node while the VM runs and nothing happens. It takes one sample for
//! each node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use zsha_e2e::{Cluster, Host};

use crate::report::{Report, Unit};
use crate::{http, process};

const ROLES: [&str; 2] = ["controller", "keeper"];
const REQUESTS_AIM: &str = "at most 4 a node";

/// Consul keeps its own counts in spans of 10 s and shows the last whole one.
const CONSUL_SPAN: Duration = Duration::from_secs(10);

pub(crate) fn measure(lab: &Cluster, span: Duration, report: &mut Report) -> Result<()> {
    eprintln!("bench: {span:?} of an idle cluster");
    let before = Reading::of_all(lab)?;
    let mut counted: Vec<Counted> = lab.hosts().iter().map(|_| Counted::default()).collect();
    let start = Instant::now();
    while start.elapsed() < span {
        for (host, counted) in lab.hosts().iter().zip(&mut counted) {
            counted.look(host)?;
        }
        // No state is waited for: the time itself is what is measured over.
        thread::sleep(Duration::from_secs(1));
    }
    let after = Reading::of_all(lab)?;
    for (before, after) in before.iter().zip(&after) {
        memory(after, report);
        processor(before, after, report)?;
        requests(before, after, report);
    }
    agents(&counted, report);
    Ok(())
}

/// Sums up the agents' counts. A node may ask another's agent, so only the sum over all agents says what a node asks on
/// average.
fn agents(counted: &[Counted], report: &mut Report) {
    let rates: Vec<f64> = counted.iter().filter_map(Counted::rate).collect();
    if rates.is_empty() {
        return; // watched for less than one of Consul's own spans
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    report.sample("idle: Consul requests, both, as the agents count", Unit::PerSecond, REQUESTS_AIM, mean);
    for rate in rates {
        report.sample("  of it, at each agent", Unit::PerSecond, "", rate);
    }
}

fn memory(after: &Reading, report: &mut Report) {
    for (role, process) in ROLES.iter().zip(&after.processes) {
        report.sample(&format!("idle: {role}, resident"), Unit::Mebibytes, "", process.memory.rss);
        report.sample(&format!("  {role}, its share (Pss)"), Unit::Mebibytes, "", process.memory.pss);
    }
    let together = after.processes.iter().map(|process| process.memory.rss).sum();
    report.sample("idle: both, resident", Unit::Mebibytes, "under 30 MB together", together);
    let together = after.processes.iter().map(|process| process.memory.pss).sum();
    report.sample("  both, their share (Pss)", Unit::Mebibytes, "", together);
}

fn processor(before: &Reading, after: &Reading, report: &mut Report) -> Result<()> {
    for (role, (old, new)) in ROLES.iter().zip(before.processes.iter().zip(&after.processes)) {
        ensure!(old.directory == new.directory, "the {role} was restarted meanwhile");
        let used = (new.cpu - old.cpu).as_secs_f64() / (new.at - old.at).as_secs_f64();
        report.sample(&format!("idle: {role}, of one core"), Unit::Percent, "", used * 100.0);
    }
    Ok(())
}

fn requests(before: &Reading, after: &Reading, report: &mut Report) {
    let seconds = (after.at - before.at).as_secs_f64();
    let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
    let renewals = rate(after.renewals, before.renewals);
    let mut all = renewals;
    for (kind, count) in &after.requests {
        let rate = rate(*count, before.requests.get(kind).copied().unwrap_or_default());
        report.sample(&format!("  controller, {kind}"), Unit::PerSecond, "", rate);
        all += rate;
    }
    // A renewal sent a second way to another agent is one here: the lease counts what took effect.
    report.sample("  keeper, renewals that took effect", Unit::PerSecond, "", renewals);
    report.sample("idle: Consul requests, both", Unit::PerSecond, REQUESTS_AIM, all);
}

/// One node at one time.
struct Reading {
    at: Instant,
    /// The processes, in the order of [`ROLES`].
    processes: Vec<Usage>,
    /// The controller's requests, by kind.
    requests: BTreeMap<String, u64>,
    /// `seq` of the node's lease.
    renewals: u64,
}

struct Usage {
    at: Instant,
    directory: PathBuf,
    cpu: Duration,
    memory: process::Memory,
}

impl Reading {
    fn of_all(lab: &Cluster) -> Result<Vec<Self>> {
        lab.hosts().iter().map(|host| Self::of(host).with_context(|| host.name.clone())).collect()
    }

    fn of(host: &Host) -> Result<Self> {
        let services = host.services()?;
        let processes = ROLES.iter().map(|role| {
            let pid = services.get(*role).and_then(|service| service.pid);
            let pid = pid.ok_or_else(|| anyhow!("the {role} does not run"))?;
            // The host's own /proc, which knows its processes by the host's own numbers.
            let directory = PathBuf::from(format!("/proc/{}/root/proc/{pid}", host.init()?));
            usage(&directory)
        });
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
            requests: requests_sent(&http::controller(host, "/metrics")?),
            renewals: lease_seq(host)?,
            at: Instant::now(),
        })
    }
}

fn usage(directory: &Path) -> Result<Usage> {
    let cpu = process::cpu_time(directory)?;
    let at = Instant::now();
    Ok(Usage { at, cpu, memory: process::memory(directory)?, directory: directory.to_owned() })
}

/// The controller's own counts of the requests that it has sent to Consul.
fn requests_sent(metrics: &str) -> BTreeMap<String, u64> {
    let sample = |line: &str| {
        let rest = line.strip_prefix("zsha_store_requests_total{kind=\"")?;
        let (kind, count) = rest.split_once("\"} ")?;
        Some((kind.to_owned(), count.trim().parse().ok()?))
    };
    metrics.lines().filter_map(sample).collect()
}

fn lease_seq(host: &Host) -> Result<u64> {
    let key = format!("leases/{}", host.name);
    let sight = http::key(host, &key, 0, Duration::ZERO)?;
    let lease: Value = serde_json::from_str(&sight.value.context("there is no lease")?)?;
    lease["seq"].as_u64().ok_or_else(|| anyhow!("no seq in the lease {lease}"))
}

/// The agent's own count of the requests of this node (and of others that came here because they had no agent of their
/// own). It stands beside our counting, and the agent has no interest in it.
#[derive(Default)]
struct Counted {
    /// The span last seen. The first span is of a time before.
    span: Option<String>,
    spans: u32,
    requests: u64,
}

impl Counted {
    fn look(&mut self, host: &Host) -> Result<()> {
        let text = host.consul("/v1/agent/metrics")?;
        let shown: Value = serde_json::from_str(&text).context("decode Consul's metrics")?;
        let span = shown["Timestamp"].as_str().context("Consul's metrics have no time")?;
        if self.span.as_deref() == Some(span) {
            return Ok(());
        }
        if self.span.replace(span.to_owned()).is_some() {
            self.spans += 1;
            self.requests += http_requests(&shown);
        }
        Ok(())
    }

    fn rate(&self) -> Option<f64> {
        let seconds = CONSUL_SPAN.as_secs_f64() * f64::from(self.spans);
        (self.spans > 0).then(|| self.requests as f64 / seconds)
    }
}

/// The number of requests for keys and transactions. This program's own requests for the agent's metrics are not among
/// them.
fn http_requests(shown: &Value) -> u64 {
    let samples = shown["Samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = samples.iter().filter(|sample| {
        let name = sample["Name"].as_str().unwrap_or_default();
        name.contains(".http.") && (name.contains(".v1.kv") || name.contains(".v1.txn"))
    });
    ours.filter_map(|sample| sample["Count"].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_read_from_the_metrics_text_by_kind() {
        let text = "# TYPE zsha_store_requests_total counter\nzsha_store_requests_total{kind=\"read\"} 12\n\
                    zsha_store_requests_total{kind=\"watch\"} 3\nzsha_passes_total 9\n";
        let read = requests_sent(text);
        assert_eq!(read, BTreeMap::from([("read".to_owned(), 12), ("watch".to_owned(), 3)]));
    }

    #[test]
    fn of_consuls_counts_only_keys_and_transactions_are_ours() {
        let samples = json!({ "Samples": [
            { "Name": "consul.http.GET.v1.kv._", "Count": 20 },
            { "Name": "consul.http.PUT.v1.txn", "Count": 10 },
            { "Name": "consul.http.GET.v1.agent.metrics", "Count": 5 },
            { "Name": "consul.kvs.apply", "Count": 7 },
        ] });
        assert_eq!(http_requests(&samples), 30);
    }
}
