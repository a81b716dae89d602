//! Real Consul agents for tests: servers with the settings of `manifests/consul/server.hcl` and clients with those of
//! `client.hcl`, started on loopback, ended with the test.

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

/// One running agent, killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Child,
    ports: Ports,
    data: TempDir,
}

/// The ports on which an agent listens on loopback.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    /// The port of a server for the other agents.
    rpc: u16,
    gossip: u16,
}

impl Ports {
    fn free(count: usize) -> Vec<Self> {
        let of = |ports: &[u16]| Self { http: ports[0], rpc: ports[1], gossip: ports[2] };
        free_ports(3 * count).chunks(3).map(of).collect()
    }

    fn join(&self) -> String {
        format!("127.0.0.1:{}", self.gossip)
    }
}

impl Agent {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.http).into()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.url().parse().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Makes the agent like one of a host that hangs: nothing is answered, and no connection is closed.
    pub(crate) fn stand_still(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.process.id().to_string()]).status();
        assert!(stopped.unwrap().success());
    }

    /// The place among these servers of the one that this agent has a connection to for its requests, by the kernel's word.
    pub(crate) fn asks(&self, servers: &[Agent]) -> Option<usize> {
        let process = PathBuf::from(format!("/proc/{}", self.process.id()));
        let open = std::fs::read_dir(process.join("fd")).unwrap();
        let open: Vec<_> = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).collect();
        let connections = std::fs::read_to_string(process.join("net/tcp")).unwrap();
        let is_ours =
            |inode: &str| open.iter().any(|file| file.to_str() == Some(&format!("socket:[{inode}]")));
        servers.iter().position(|server| {
            let (to, established) = (format!("0100007F:{:04X}", server.ports.rpc), "01");
            connections.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words[2] == to && words[3] == established && is_ours(words[9])
            })
        })
    }

    /// Runs a command of Consul's that asks this agent.
    pub(crate) fn command(&self, words: &[&str]) -> std::process::Output {
        Command::new(consul()).args(words).env("CONSUL_HTTP_ADDR", self.url()).output().unwrap()
    }

    /// The addresses of Consul's servers that vote, as this agent knows them; none where it does not say.
    pub(crate) fn voters(&self) -> Option<Vec<String>> {
        let listed = self.command(&["operator", "raft", "list-peers"]);
        let text = String::from_utf8(listed.stdout).unwrap();
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let voters = rows.filter(|row| row.get(4) == Some(&"true")).map(|row| row[2].to_owned());
        listed.status.success().then(|| voters.collect())
    }

    pub(crate) fn rpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.rpc)
    }

    pub(crate) fn has_log(&self) -> bool {
        self.data_dir().join("raft").exists()
    }

    pub(crate) fn forget_log(&self) {
        std::fs::remove_dir_all(self.data_dir().join("raft")).unwrap();
    }

    fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// The same agent, started anew in another part: with the same data, under the same name and at the same ports.
    pub(crate) fn anew(mut self, part: Part, servers: &[Agent]) -> Self {
        self.kill();
        let join: Vec<_> = servers.iter().map(|server| server.ports.join()).collect();
        self.process = spawn(&self.data, self.ports, part, &join, &json!({}));
        self
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

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// May do anything, where ACLs are on.
pub(crate) const MASTER_TOKEN: &str = "8a0d7a2e-64d5-4c0b-9d3d-0c6f1d1f5a11";

/// One server, elected.
pub(crate) async fn server() -> Agent {
    one(json!({})).await
}

/// One server that denies whatever no token allows.
pub(crate) async fn server_with_acl() -> Agent {
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

async fn one(settings: Value) -> Agent {
    let server = start(Ports::free(1)[0], Part::Server(1), &[], &settings);
    wait_for_leader(&[&server]).await;
    server
}

/// One server with a certificate as Consul's own tool makes it, at an address that is not in it; and the file of the
/// authority.
pub(crate) async fn server_with_tls(directory: &Path) -> (Agent, Endpoint, PathBuf) {
    for words in [&["tls", "ca", "create"][..], &["tls", "cert", "create", "-server"]] {
        let made = Command::new(consul()).args(words).current_dir(directory).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let at = |name: &str| directory.join(name);
    let port = free_ports(1)[0];
    let server = one(json!({
        "addresses": { "https": "127.0.0.2" },
        "ports": { "https": port },
        "cert_file": at("dc1-server-consul-0.pem"),
        "key_file": at("dc1-server-consul-0-key.pem"),
    }))
    .await;
    (server, format!("https://127.0.0.2:{port}").parse().unwrap(), at("consul-agent-ca.pem"))
}

/// Three servers of one cluster, one of them elected.
pub(crate) async fn three() -> Vec<Agent> {
    servers(3).await
}

/// Starts this many servers of one cluster. Returns when one of them is elected.
pub(crate) async fn servers(count: usize) -> Vec<Agent> {
    let ports = Ports::free(count);
    let join: Vec<_> = ports.iter().map(Ports::join).collect();
    let servers: Vec<_> =
        ports.iter().map(|ports| start(*ports, Part::Server(count), &join, &json!({}))).collect();
    wait_for_leader(&servers.iter().collect::<Vec<_>>()).await;
    servers
}

/// A client of these servers that hands requests on to them.
pub(crate) async fn client(servers: &[Agent]) -> Agent {
    client_with(servers, &json!({})).await
}

/// A client with settings of its own, such as ACLs.
pub(crate) async fn client_with(servers: &[Agent], settings: &Value) -> Agent {
    let join: Vec<_> = servers.iter().map(|server| server.ports.join()).collect();
    let client = start(Ports::free(1)[0], Part::Client, &join, settings);
    wait_for_leader(&[&client]).await;
    client
}

/// The part that an agent plays in its cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// One of so many that elect the first leader.
    Server(usize),
    Client,
}

/// A store on these servers, the first of them as the local agent.
pub(crate) fn store(servers: &[&Agent], request_timeout: Duration) -> ConsulStore {
    let endpoints = servers.iter().map(|server| server.endpoint()).collect();
    ConsulStore::connect(ConsulSettings { request_timeout, ..ConsulSettings::new(endpoints) }).unwrap()
}

async fn wait_for_leader(servers: &[&Agent]) {
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

fn start(ports: Ports, part: Part, join: &[String], settings: &Value) -> Agent {
    let data = tempfile::tempdir().unwrap();
    let process = spawn(&data, ports, part, join, settings);
    Agent { process, ports, data }
}

fn spawn(data: &TempDir, ports: Ports, part: Part, join: &[String], settings: &Value) -> Child {
    let mut config = json!({
        "bind_addr": "127.0.0.1",
        "node_name": format!("agent-{}", ports.http),
        "data_dir": data.path().join("data"),
        "retry_join": join,
        "log_level": "warn",
        "ports": {
            "http": ports.http, "server": ports.rpc, "serf_lan": ports.gossip, "serf_wan": -1, "dns": -1, "grpc": -1
        },
    });
    let shipped = match part {
        Part::Server(expected) => {
            config["bootstrap_expect"] = expected.into();
            "server.hcl"
        }
        Part::Client => "client.hcl",
    };
    for (name, value) in settings.as_object().unwrap() {
        match (config[name].as_object_mut(), value) {
            (Some(before), Value::Object(more)) => before.extend(more.clone()),
            _ => config[name] = value.clone(),
        }
    }
    let file = data.path().join("consul.json");
    std::fs::write(&file, config.to_string()).unwrap();
    // The agent dies with the test, even one that is killed.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(consul())
        .args(["agent", "-config-file"])
        .arg(manifest(shipped))
        .arg("-config-file")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) starts Consul")
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
