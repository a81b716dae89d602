//! What a command has at hand besides its arguments: streams, a clock, who asks, and whether somebody can be asked.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use zsha_crds::{ClusterName, Keys};
use zsha_runtime::client::clusters;
use zsha_runtime::store::ConsulStore;
use zsha_runtime::{Clock, Store};

use crate::failure::Failure;
use crate::output::Output;

/// Puts a question to a person; true is yes.
pub type Ask = fn(&str, &mut dyn Write) -> io::Result<bool>;

/// The commit, branch and date that the binary was built from, as far as the build knew them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Build {
    pub commit: Option<&'static str>,
    pub branch: Option<&'static str>,
    pub date: Option<&'static str>,
}

pub struct Session<'a> {
    pub output: Output<'a>,
    pub stdin: &'a mut dyn Read,
    pub clock: Clock,
    /// `user@host`, for the history.
    pub who: String,
    /// None: there is nobody to ask.
    pub ask: Option<Ask>,
    pub build: Build,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("output", &self.output)
            .field("who", &self.who)
            .finish_non_exhaustive()
    }
}

/// The store, and the cluster that was named on the command line.
#[derive(Debug, Clone)]
pub struct Reach {
    pub store: Arc<dyn Store>,
    /// The same, where it is Consul: it has members to tell of.
    pub consul: Option<Arc<ConsulStore>>,
    pub named: Option<ClusterName>,
}

impl Reach {
    /// The cluster that was named, or the only one there is.
    pub async fn cluster(&self) -> Result<ClusterName, Failure> {
        match &self.named {
            Some(named) => Ok(named.clone()),
            None => Ok(clusters::the_only(self.store.as_ref()).await?),
        }
    }

    /// The cluster, and where its records lie.
    pub async fn keys(&self) -> Result<(ClusterName, Keys), Failure> {
        let cluster = self.cluster().await?;
        let keys = Keys::new(&cluster);
        Ok((cluster, keys))
    }
}

/// Asks on the terminal. Anything but yes is no.
pub fn ask(question: &str, to: &mut dyn Write) -> io::Result<bool> {
    write!(to, "{question} [y/N] ")?;
    to.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// `user@host`: for people who read the history, not for deciding who may.
pub fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map(|host| host.trim().to_owned()).unwrap_or_else(|_| "unknown".to_owned());
    format!("{}@{host}", user.filter(|user| !user.is_empty()).unwrap_or_else(|| "unknown".to_owned()))
}
