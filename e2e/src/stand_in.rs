//! A program that listens where a host's Consul agent did, and behaves as agents at their worst do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

type Connect = dyn Fn() -> Result<TcpStream> + Send + Sync;

/// A way to a real agent elsewhere.
#[derive(Clone)]
pub struct Upstream(Arc<Connect>);

impl Upstream {
    pub fn new(connect: impl Fn() -> Result<TcpStream> + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upstream")
    }
}

/// The way it treats a client.
#[derive(Debug, Clone)]
pub enum Manner {
    /// It answers 500 to everything, and does nothing.
    Fails,
    /// It does what is asked, and answers 500: as when a leader loses its leadership while it commits.
    FailsAndDoes(Upstream),
    /// It passes on what is asked, and the true answer comes so much later.
    Slow(Duration, Upstream),
    /// It takes the connection, reads, and never says a word.
    Silent,
    /// A client can neither connect nor is refused: a black hole.
    BlackHole,
}

/// The words of Consul then.
const FAILURE: &str = "rpc error: leadership lost while committing log";
/// The time that a stand-in takes to notice that it is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most that is read of one request's head and body.
const REQUEST_LIMIT: usize = 1 << 20;

/// Listens until it is dropped; then every connection ends.
#[derive(Debug)]
pub struct StandIn {
    over: Arc<AtomicBool>,
    open: Open,
    thread: Option<JoinHandle<()>>,
}

type Open = Arc<Mutex<Vec<TcpStream>>>;

impl StandIn {
    /// Starts it. `queue` has connections that are not taken up, and that leave no room for another.
    pub(crate) fn start(listener: TcpListener, manner: Manner, queue: Vec<TcpStream>) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let open: Open = Arc::new(Mutex::new(queue));
        listener.set_nonblocking(true).context("listen without waiting")?;
        let (ended, all) = (Arc::clone(&over), Arc::clone(&open));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let accepted = match manner {
                    Manner::BlackHole => None,
                    _ => listener.accept().ok(),
                };
                match accepted {
                    Some((stream, _)) => take(stream, &manner, &all),
                    None => thread::sleep(LOOK_EVERY),
                }
            }
        });
        Ok(Self { over, open, thread: Some(thread) })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Takes a connection. One that breaks off is the peer's affair.
fn take(stream: TcpStream, manner: &Manner, open: &Open) {
    stream.set_nonblocking(false).ok();
    keep(&stream, open);
    let (manner, open) = (manner.clone(), Arc::clone(open));
    thread::spawn(move || match manner {
        Manner::Fails => fail(stream, None),
        Manner::FailsAndDoes(upstream) => fail(stream, Some(&upstream)),
        Manner::Slow(late, upstream) => pass_on(&stream, late, &upstream, &open),
        Manner::Silent | Manner::BlackHole => drop(read_request(&stream)),
    });
}

/// Keeps the connection, so that it ends with the stand-in.
fn keep(stream: &TcpStream, open: &Open) {
    if let Ok(stream) = stream.try_clone() {
        open.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
    }
}

fn fail(mut stream: TcpStream, upstream: Option<&Upstream>) {
    let Some(request) = read_request(&stream) else { return };
    if let Some(mut agent) = upstream.and_then(|upstream| (upstream.0)().ok()) {
        // Whatever it answers: by the first bytes it has been done.
        let _ = agent.write_all(&request).and_then(|()| agent.read(&mut [0; 1024]));
    }
    let _ = write!(
        stream,
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{FAILURE}",
        FAILURE.len()
    );
    stream.shutdown(Shutdown::Both).ok();
}

/// Reads a request. None where the peer went away in the middle of it.
fn read_request(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
        if is_whole(&request) || request.len() > REQUEST_LIMIT {
            return Some(request);
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or_default()
}

fn pass_on(stream: &TcpStream, late: Duration, upstream: &Upstream, open: &Open) {
    let Ok(agent) = (upstream.0)() else { return };
    // A watch of Consul's stays open for minutes.
    agent.set_read_timeout(None).ok();
    keep(&agent, open);
    thread::scope(|scope| {
        scope.spawn(|| pump(stream, &agent, Duration::ZERO));
        pump(&agent, stream, late);
    });
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, late: Duration) {
    let mut buffer = [0; 4096];
    while let Ok(read) = from.read(&mut buffer)
        && read > 0
    {
        thread::sleep(late);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(manner: Manner) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let _stand_in = StandIn::start(listener, manner, Vec::new())?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        crate::net::request(stream, "PUT", "/v1/kv/a", "b")
    }

    /// An agent that tells each time what it was asked.
    fn agent() -> (Upstream, std::sync::mpsc::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (say, asked) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                say.send(read_request(&stream).unwrap()).unwrap();
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\ntrue").unwrap();
            }
        });
        (Upstream::new(move || Ok(TcpStream::connect(address)?)), asked)
    }

    #[test]
    fn each_manner_is_what_it_says() {
        let fails = ask(Manner::Fails).unwrap_err().to_string();
        assert!(fails.contains("HTTP 500") && fails.contains(FAILURE), "{fails}");
        let (upstream, asked) = agent();
        assert!(ask(Manner::FailsAndDoes(upstream.clone())).unwrap_err().to_string().contains("HTTP 500"));
        assert!(asked.recv().unwrap().ends_with(b"\r\n\r\nb"), "the whole request was passed on");
        let begun = std::time::Instant::now();
        let late = Duration::from_millis(200);
        assert_eq!(ask(Manner::Slow(late, upstream)).unwrap(), "true");
        assert!(begun.elapsed() >= late);
        let silent = format!("{:#}", ask(Manner::Silent).unwrap_err());
        assert!(silent.contains("read the answer"), "{silent}");
    }
}
