//! The smallest HTTP client there is, for tests of what was really sent, byte by byte. It makes one request for each
//! connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A test that waits longer has failed.
pub(crate) const LONG: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Starts a server on a port of loopback that the kernel chose.
    pub(crate) async fn start<F>(serve: impl FnOnce(TcpListener) -> F) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, task: tokio::spawn(serve(listener)) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        ask(self.address, &format!("GET {path}"), "localhost").await
    }

    /// Sends the request and leaves the answer to be read bit by bit.
    pub(crate) async fn open(&self, path: &str) -> Open {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        Open { connection, unread: String::new() }
    }

    pub(crate) async fn ended(self) -> io::Result<()> {
        tokio::time::timeout(LONG, self.task).await.expect("the server did not end").unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole answer: {text}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: body.to_owned() }
    }
}

/// `line` is method and target.
pub(crate) async fn ask(address: SocketAddr, line: &str, host: &str) -> Answer {
    send(address, line, host, "").await
}

pub(crate) async fn send(address: SocketAddr, line: &str, host: &str, body: &str) -> Answer {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(LONG, connection.read_to_string(&mut text)).await.expect("no answer").unwrap();
    Answer::parse(&text)
}

/// An answer that goes on.
#[derive(Debug)]
pub(crate) struct Open {
    connection: TcpStream,
    unread: String,
}

impl Open {
    /// Reads what was sent up to and with the line that contains `mark`.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.unread.find(mark) {
                let rest = self.unread.split_off(at + mark.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            let more = self.read().await;
            assert!(!more.is_empty(), "the stream ended before '{mark}': {}", self.unread);
            self.unread.push_str(&more);
        }
    }

    pub(crate) async fn ends(&mut self) {
        while !self.read().await.is_empty() {}
    }

    async fn read(&mut self) -> String {
        let mut buffer = [0; 4096];
        let count =
            tokio::time::timeout(LONG, self.connection.read(&mut buffer)).await.expect("silence").unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }
}
