//! Real Consul servers for tests: with the settings of `manifests/consul/server.hcl`, started on loopback, ended with
//! the test.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use zsha_runtime::store::consul::{ConsulSettings, ConsulStore, Endpoint};
use zsha_runtime::store::{Op, Store, StoreError};

/// Whatever takes longer has failed. Far more than an election under load needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One running server, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    http_port: u16,
    _data: TempDir,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.http_port).into()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.url().parse().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A request that the crate itself has no need of.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, Bytes) {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .header("X-Consul-Token", MASTER_TOKEN)
            .body(Full::new(body.into()))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// May do anything, where ACLs are on.
pub(crate) const MASTER_TOKEN: &str = "8a0d7a2e-64d5-4c0b-9d3d-0c6f1d1f5a11";

/// One server, elected.
pub(crate) async fn server() -> Server {
    one(json!({})).await
}

/// One server that denies whatever no token allows.
pub(crate) async fn server_with_acl() -> Server {
    let acl = json!({ "enabled": true, "default_policy": "deny", "tokens": { "master": MASTER_TOKEN } });
    let server = one(json!({ "acl": acl })).await;
    let known = async {
        let mut retry = tokio::time::interval(Duration::from_millis(50));
        loop {
            retry.tick().await;
            // A leader makes the master token in its first moments, and denies everything until it is there.
            if server.request(Method::GET, "/v1/acl/token/self", "").await.0 == StatusCode::OK {
                return;
            }
        }
    };
    timeout(PATIENCE, known).await.expect("the master token is known");
    server
}

async fn one(settings: Value) -> Server {
    let ports = free_ports(3);
    let server = start(&ports, 1, &[], settings);
    wait_for_leader(&[&server]).await;
    server
}

/// Three servers of one cluster, one of them elected.
pub(crate) async fn three() -> Vec<Server> {
    let ports: Vec<_> = free_ports(9).chunks(3).map(<[u16]>::to_vec).collect();
    let join: Vec<_> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports[2])).collect();
    let servers: Vec<_> = ports.iter().map(|ports| start(ports, 3, &join, json!({}))).collect();
    wait_for_leader(&servers.iter().collect::<Vec<_>>()).await;
    servers
}

/// A store on these servers, the first of them as the local agent.
pub(crate) fn store(servers: &[&Server], request_timeout: Duration) -> ConsulStore {
    let endpoints = servers.iter().map(|server| server.endpoint()).collect();
    ConsulStore::connect(ConsulSettings { request_timeout, ..ConsulSettings::new(endpoints) }).unwrap()
}

async fn wait_for_leader(servers: &[&Server]) {
    let store = store(servers, Duration::from_secs(1));
    let leader = async {
        let mut retry = tokio::time::interval(Duration::from_millis(50));
        loop {
            retry.tick().await;
            // A leader that takes writes, not only one that is known by name. To be denied is an answer, too.
            let probe = vec![Op::CheckAbsent { key: "none".into() }];
            match store.txn(probe).await {
                Ok(_) | Err(StoreError::Denied { .. }) => return,
                Err(_) => {}
            }
        }
    };
    timeout(PATIENCE, leader).await.expect("a leader is elected");
}

fn start(ports: &[u16], servers: usize, join: &[String], settings: Value) -> Server {
    let data = tempfile::tempdir().unwrap();
    let mut config = json!({
        "bootstrap_expect": servers,
        "bind_addr": "127.0.0.1",
        "node_name": format!("server-{}", ports[0]),
        "data_dir": data.path().join("data"),
        "retry_join": join,
        "log_level": "warn",
        "ports": { "http": ports[0], "server": ports[1], "serf_lan": ports[2], "serf_wan": -1, "dns": -1, "grpc": -1 },
    });
    for (name, value) in settings.as_object().unwrap() {
        config[name] = value.clone();
    }
    let file = data.path().join("consul.json");
    std::fs::write(&file, config.to_string()).unwrap();
    // The server dies with the test, even one that is killed.
    let process = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(consul())
        .args(["agent", "-config-file"])
        .arg(manifest("server.hcl"))
        .arg("-config-file")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) starts Consul");
    Server { process, http_port: ports[0], _data: data }
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// A file of `manifests/consul`.
pub(crate) fn manifest(name: &str) -> PathBuf {
    project().join("manifests/consul").join(name)
}

/// The directory of the whole project, whichever of its packages is tested.
fn project() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|directory| directory.join("Cargo.lock").is_file()).expect("a workspace")
}

/// The `consul` to test with: the one that `ZSHA_CONSUL` names, one on PATH, or the one that setup fetched.
pub(crate) fn consul() -> PathBuf {
    let named = env::var_os("ZSHA_CONSUL").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("consul"));
    let lab = project().join("target/lab");
    named
        .into_iter()
        .chain(on_path)
        .find(|file| file.is_file())
        .or_else(|| fetched(&lab))
        .expect("no `consul` found: run `make setup`, or name one in ZSHA_CONSUL")
}

/// `usr/bin/consul` somewhere below.
fn fetched(dir: &Path) -> Option<PathBuf> {
    let file = dir.join("usr/bin/consul");
    if file.is_file() {
        return Some(file);
    }
    let below = std::fs::read_dir(dir).ok()?;
    below
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .find_map(|dir| fetched(&dir))
}
