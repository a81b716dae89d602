//! The operator who installs zsha: the files unpacked on the first host, and the commands given there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::command::Finished;
use crate::host::Host;
use crate::init::PASSWORD;
use crate::product::Document;
use crate::services::{consul, product_directory};

/// The time for one `zsha install` on three hosts, with programs of a debug build to send.
pub const INSTALL: Duration = Duration::from_secs(300);

/// Makes a built program as it is shipped: the debug information of a debug build only takes time to send.
pub fn stripped(program: &str, to: &Path) -> Result<()> {
    let from = product_directory()?.join(program);
    let done = Command::new("strip").arg("-o").arg(to).arg(&from).status()?;
    ensure!(done.success(), "strip {}", from.display());
    Ok(())
}

/// The programs, the document, the password, and what the lab's nodes need.
#[derive(Debug)]
pub struct Operator<'a> {
    pub host: &'a Host,
    pub dir: PathBuf,
}

impl<'a> Operator<'a> {
    pub fn new(lab: &'a Cluster, document: &Document) -> Result<Self> {
        let dir = lab.dir().join("operator");
        fs::create_dir(&dir)?;
        for program in ["zsha", "zsha-controller"] {
            stripped(program, &dir.join(program))?;
        }
        fs::copy(consul()?, dir.join("consul"))?;
        fs::write(dir.join("cluster.json"), document.0.to_string())?;
        fs::write(dir.join("password"), format!("{PASSWORD}\n"))?;
        let settings = "domainType: qemu\nunsafeMigration: true\nmigrationUri: qemu+tcp://{address}/system\n";
        fs::write(dir.join("settings.yaml"), settings)?;
        Ok(Self { host: lab.host(1), dir })
    }

    pub fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    /// Runs `zsha` as the operator unpacked it, with the password and host keys needed to get into the nodes.
    pub fn zsha(&self, words: &[&str]) -> Result<Finished> {
        let (zsha, password, known) = (self.path("zsha"), self.path("password"), self.path("known_hosts"));
        let login = ["--password-file", &password, "--known-hosts", &known];
        self.host.exec_with(&[&[zsha.as_str()], words, &login].concat(), "", INSTALL)
    }

    pub fn install(&self, words: &[&str]) -> Result<Finished> {
        let (document, settings) = (self.path("cluster.json"), self.path("settings.yaml"));
        self.zsha(&[&["install", "-c", &document, "--settings", &settings], words].concat())
    }

    pub fn uninstall(&self, words: &[&str]) -> Result<Finished> {
        self.zsha(&[&["uninstall", "-c", &self.path("cluster.json")], words].concat())
    }
}
