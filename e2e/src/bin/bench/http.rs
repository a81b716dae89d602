//! Makes one HTTP request, with Consul's index in its answer, for blocking queries and metrics. No keep-alive, no TLS.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use zsha_e2e::{CLUSTER, Host};

/// The key of the ownership record.
pub(crate) const RECORD: &str = "vms/mnvm";
/// How long a blocking query waits, where a loop asks again.
pub(crate) const QUERY: Duration = Duration::from_secs(5);

const CONSUL_PORT: u16 = 8500;
/// The time for an answer beyond the wait of a blocking query, or for one that waits for nothing.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A key of Consul as it was at `index`.
#[derive(Debug)]
pub(crate) struct Sight {
    pub index: u64,
    /// None: there is no such key.
    pub value: Option<String>,
}

/// Reads a key of the cluster from the host's agent, at once where `after` is 0; else when something after that
/// index may have changed it, or `wait` is over.
pub(crate) fn key(host: &Host, key: &str, after: u64, wait: Duration) -> Result<Sight> {
    read(host, &format!("{key}?raw"), after, wait)
}

/// Does the same out of the agent's own copy, which lags behind the leader's by a moment and needs no leader.
pub(crate) fn stale_key(host: &Host, key: &str, after: u64, wait: Duration) -> Result<Sight> {
    read(host, &format!("{key}?raw&stale"), after, wait)
}

fn read(host: &Host, target: &str, after: u64, wait: Duration) -> Result<Sight> {
    let path = format!("/v1/kv/zsha/{CLUSTER}/{target}&index={after}&wait={}ms", wait.as_millis());
    // Consul adds up to a sixteenth of the wait.
    let answer = get(host.connect(CONSUL_PORT)?, &path, wait + wait / 16 + ANSWER_LIMIT)?;
    let index = answer.index.ok_or_else(|| anyhow!("GET {path}: an answer without an index"))?;
    let value = match answer.status {
        200 => Some(answer.body),
        404 => None,
        status => bail!("GET {path}: HTTP {status}: {}", answer.body.trim()),
    };
    Ok(Sight { index, value })
}

/// Makes a `GET` to the host's controller.
pub(crate) fn controller(host: &Host, path: &str) -> Result<String> {
    let url = host.status_http();
    let address: SocketAddr = url.trim_start_matches("http://").parse().context(url.clone())?;
    let answer = get(connect_inside(host.init()?, address)?, path, ANSWER_LIMIT)?;
    match answer.status {
        200 => Ok(answer.body),
        status => bail!("GET {url}{path}: HTTP {status}: {}", answer.body.trim()),
    }
}

/// Connects inside a host. A socket stays in the network namespace that it was made in, so only a thread for connecting
/// moves there.
fn connect_inside(pid: i32, address: SocketAddr) -> Result<TcpStream> {
    let network =
        File::open(format!("/proc/{pid}/ns/net")).with_context(|| format!("network of process {pid}"))?;
    let connect = move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).context("setns")?;
        TcpStream::connect_timeout(&address, ANSWER_LIMIT).with_context(|| format!("connect to {address}"))
    };
    thread::spawn(connect).join().map_err(|_| anyhow!("the connecting thread panicked"))?
}

struct Answer {
    status: u16,
    index: Option<u64>,
    body: String,
}

fn get(mut stream: TcpStream, path: &str, limit: Duration) -> Result<Answer> {
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").with_context(|| format!("send GET {path}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read the answer to GET {path}"))?;
    parse(&answer).ok_or_else(|| anyhow!("GET {path}: not an HTTP answer"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let index = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-consul-index").then(|| value.trim().parse().ok())?
    });
    Some(Answer { status, index, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_index_is_read_whatever_its_case() {
        let answer = super::parse("HTTP/1.1 404 Not Found\r\nA: b\r\nx-consul-Index: 17\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.index, answer.body.as_str()), (404, Some(17), ""));
    }
}
