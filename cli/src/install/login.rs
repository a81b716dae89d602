//! How install and uninstall get into the nodes: flags to a login, and connections to every node or to none.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use futures::future::join_all;
use zsha_crds::document::Node;
use zsha_crds::{HaCluster, NodeName};

use super::ssh::{Login, Remote};
use super::told::Told;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Over SSH")]
#[group(skip)]
pub struct Args {
    /// The password of --user on every node. Other users of this machine can see it: prefer --password-file
    #[arg(short, long, value_name = "PASSWORD", conflicts_with_all = ["password_file", "password_stdin"])]
    pub password: Option<String>,
    /// A file whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// A private key [default: the agent's, then ~/.ssh/id_ed25519, id_ecdsa, id_rsa]
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The user to log in as; a user other than root uses sudo
    #[arg(long, value_name = "USER", default_value = "root")]
    pub user: String,
    #[arg(long, value_name = "PORT", default_value_t = 22)]
    pub ssh_port: u16,
    /// Where the nodes' host keys are [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
    /// Take the key of a node that is seen for the first time, and add it there
    #[arg(long)]
    pub accept_new_host_keys: bool,
}

impl Args {
    pub(crate) fn login(&self, told: Told, session: &mut Session<'_>) -> Result<Login, Failure> {
        if self.password.is_some() {
            let text = "the password stands in the command line, where every user of this machine can read it, and in \
                        the shell's history: prefer --password-file or --password-stdin";
            told.remark(session, None, text)?;
        }
        let home = std::env::home_dir();
        let in_ssh = |file: &str| home.as_ref().map(|home| home.join(".ssh").join(file));
        let known_hosts = self.known_hosts.clone().or_else(|| in_ssh("known_hosts")).ok_or_else(|| {
            Failure::usage("there is no home directory to look for known_hosts in").hint("--known-hosts FILE")
        })?;
        let mut identities = self.identity.clone();
        if identities.is_empty() {
            let usual = ["id_ed25519", "id_ecdsa", "id_rsa"].iter().filter_map(|file| in_ssh(file));
            identities.extend(usual.filter(|file| file.exists()));
        }
        Ok(Login {
            user: self.user.clone(),
            port: self.ssh_port,
            password: self.password(session)?,
            identities,
            known_hosts,
            accept_new_host_keys: self.accept_new_host_keys,
        })
    }

    fn password(&self, session: &mut Session<'_>) -> Result<Option<String>, Failure> {
        let (line, name) = match (&self.password, &self.password_file, self.password_stdin) {
            (Some(password), ..) => return Ok(Some(password.clone())),
            (None, Some(file), _) => (first_line_of(file), file.display().to_string()),
            (None, None, true) => (first_line(&mut *session.stdin), "<stdin>".to_owned()),
            (None, None, false) => return Ok(None),
        };
        let unreadable = |why: String| {
            Failure::new(Exit::Usage, "Unreadable", format!("no password can be read from {name}")).cause(why)
        };
        let line = line.map_err(|error| unreadable(error.to_string()))?;
        if line.is_empty() { Err(unreadable("its first line is empty".into())) } else { Ok(Some(line)) }
    }
}

fn first_line_of(file: &Path) -> std::io::Result<String> {
    first_line(std::fs::File::open(file)?)
}

fn first_line(from: impl std::io::Read) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The nodes of a document, each connected.
pub(crate) type Remotes = BTreeMap<NodeName, Remote>;

/// All of them, or an error that names every one that cannot be had; then nothing was done on any.
pub(crate) async fn connect(document: &HaCluster, login: &Login) -> Result<Remotes, Failure> {
    let one = |node: &Node| {
        let (node, host) = (node.clone(), node.address.to_string());
        async move { (node, Remote::connect(&host, login).await) }
    };
    let mut remotes = Remotes::new();
    let mut failed = Vec::new();
    for (node, done) in join_all(document.nodes().iter().map(one)).await {
        match done {
            Ok(remote) => {
                remotes.insert(node.name, remote);
            }
            Err(error) => failed.push((node, error)),
        }
    }
    if failed.is_empty() {
        return Ok(remotes);
    }
    let nodes = if failed.len() == 1 { "one node" } else { "some nodes" };
    let message = format!("{nodes} cannot be connected to, and nothing was done on any");
    let failure = Failure::new(Exit::General, "NotConnected", message);
    let failure = failed.iter().fold(failure, |failure, (node, error)| {
        failure.cause(format!("{} {}: {error}", node.address, node.name))
    });
    Err(match failed.iter().find_map(|(_, error)| error.hint()) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}
