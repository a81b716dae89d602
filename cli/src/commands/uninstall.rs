//! `zsha uninstall`: the VM shut down, then everything that install has made taken off every node. The image stays.
//!
//! Nothing is removed before the VM is seen to be gone on every node: a node without a keeper would not end its copy.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use zsha_crds::document::Node;
use zsha_crds::{HaCluster, VmId};
use zsha_runtime::client::document::Live;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::input;
use crate::install::ceph::CephLogin;
use crate::install::facts::Installed;
use crate::install::layout;
use crate::install::login::{self, Remotes};
use crate::install::nodes::Nodes;
use crate::install::plan::ceph_admin;
use crate::install::ssh::{Remote, SshError, quoted};
use crate::install::steps::{self, Look};
use crate::install::told::{self, End, Told};
use crate::install::waits::SHORT;
use crate::output::form::Form;
use crate::session::{Reach, Session};

/// The time that the guest is given, as `zsha stop` gives it.
const GUEST: Duration = Duration::from_secs(120);
const BESIDE: Duration = Duration::from_secs(60);
/// Services that stop, a package of files that go.
const CLEAN: Duration = Duration::from_secs(180);

const WARNING: [&str; 2] = [
    "WARNING: this will shut the management-node VM down, and remove zsha and what Consul holds of it from every node.",
    "If you are *ABSOLUTELY CERTAIN* that is what you want, followed by --yes-i-really-really-mean-it.",
];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The VM's image stays on the share. Consul goes where install has brought it, with all that is in it; one \
                  that was there before is left as it is, and zsha's keys in it with it. --timeout: how long the guest \
                  has to power off (120s)."
)]
pub struct Args {
    /// The document that names the nodes [default: the one in force]
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<String>,
    /// Confirms that zsha is to be removed
    #[arg(long)]
    pub yes_i_really_really_mean_it: bool,
    #[arg(short, long, value_name = "FORM", default_value = "text", value_parser = told::forms())]
    pub output: Form,
    #[command(flatten)]
    pub login: login::Args,
}

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        self.config.is_none() && self.yes_i_really_really_mean_it
    }

    fn wants_json(&self) -> bool {
        self.output.is_json()
    }

    fn is_endless(&self) -> bool {
        true
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.global, beside.reach, session).await
    }
}

async fn run(
    args: &Args,
    global: &Global,
    reach: Option<&Reach>,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let told = Told { json: args.output.is_json() };
    if !args.yes_i_really_really_mean_it {
        WARNING.iter().try_for_each(|line| told.line(session, None, line))?;
        return Err(Failure::new(Exit::Refused, "NotConfirmed", "not confirmed: nothing was done"));
    }
    let document = document(args, global, reach, session).await?;
    let nodes = Nodes::open(&document, &[], &args.login, told, session).await?;
    told.line(session, None, "start clean")?;
    shut_down(&document, &nodes, told, session, global.timeout.unwrap_or(GUEST)).await?;
    // Before the records of what was made go.
    let mut installed = nodes.facts.values().filter_map(|facts| facts.installed.as_ref());
    if installed.any(|installed| installed.ceph) {
        leave_ceph(&document, &nodes, told, session).await?;
    }
    let changed = clean_all(&document, &nodes, told, session).await?;
    told.line(session, None, "clean finished")?;
    told.end(session, "UninstallResult", End::of(changed))?;
    Ok(Exit::Success)
}

/// The VM is seen to be gone from every node, and nothing is left on any that could start it.
async fn shut_down(
    document: &HaCluster,
    nodes: &Nodes,
    told: Told,
    session: &mut Session<'_>,
    guest: Duration,
) -> Result<(), Failure> {
    let Nodes { remotes, facts } = nodes;
    let running = document.nodes().iter().find(|node| {
        let keeper = facts.get(&node.name).and_then(|facts| facts.units.get(layout::SERVICES[0]));
        keeper.is_some_and(|unit| unit.is_active())
    });
    told.line(session, None, "start shutdown cluster")?;
    for node in document.nodes() {
        told.line(session, Some(node), &format!("Do for {}", node.address))?;
    }
    if let Some(node) = running {
        stop(document, node, remote(remotes, node)?, guest).await?;
    }
    for node in document.nodes() {
        gone(document, node, remote(remotes, node)?).await?;
    }
    told.line(session, None, "shutdown cluster finished")?;
    // First nothing that could start the VM is left anywhere, then the rest.
    for node in document.nodes() {
        let done = remote(remotes, node)?.run(&stop_services(), &[], CLEAN).await;
        done.map_err(|error| failed(node, "stop zsha there", &error))?;
    }
    for node in document.nodes() {
        gone(document, node, remote(remotes, node)?).await?;
    }
    Ok(())
}

/// Takes away what install has made on every node. True: it has made something somewhere.
async fn clean_all(
    document: &HaCluster,
    nodes: &Nodes,
    told: Told,
    session: &mut Session<'_>,
) -> Result<bool, Failure> {
    let ceph = CephLogin::named(document.name());
    let mut changed = false;
    for node in document.nodes() {
        told.line(session, Some(node), &format!("Do for {}", node.address))?;
        let installed = nodes.facts.get(&node.name).and_then(|facts| facts.installed.as_ref());
        let Some(installed) = installed else {
            told.remark(session, Some(node), "install has made nothing there; it is left as it is")?;
            continue;
        };
        let script = clean(installed, &ceph);
        let done = remote(&nodes.remotes, node)?.run(&script, &[], CLEAN).await;
        done.map_err(|error| failed(node, "remove zsha there", &error))?;
        changed = true;
    }
    Ok(changed)
}

async fn document(
    args: &Args,
    global: &Global,
    reach: Option<&Reach>,
    session: &mut Session<'_>,
) -> Result<HaCluster, Failure> {
    match (&args.config, reach) {
        (Some(file), _) => {
            let decoded = input::document(file, global.cluster.as_ref(), None, session).await?;
            input::warn(session, &decoded.warnings)?;
            Ok(decoded.cluster)
        }
        (None, Some(reach)) => {
            let (_, keys) = reach.keys().await?;
            Ok(Live::read(reach.store.as_ref(), &keys).await?.needed()?)
        }
        (None, None) => Err(Failure::usage("no document names the nodes").hint("zsha uninstall -c FILE")),
    }
}

/// Takes the cluster's user out of Ceph, where a node sees it there.
async fn leave_ceph(
    document: &HaCluster,
    nodes: &Nodes,
    told: Told,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let (Some(login), Some(node)) = (CephLogin::of(document), ceph_admin(document, &nodes.facts)) else {
        let client = CephLogin::named(document.name()).client();
        let left = format!(
            "{client} is left in Ceph, which no node is seen to administer: `ceph auth del {client}`"
        );
        return told.remark(session, None, &left);
    };
    let done = login.remove(remote(&nodes.remotes, node)?).await;
    done.map_err(|error| failed(node, &format!("remove {} from Ceph", login.client()), &error))?;
    told.line(session, Some(node), &format!("Remove ceph auth of {}", login.client()))
}

fn remote<'a>(remotes: &'a Remotes, node: &Node) -> Result<&'a Remote, Failure> {
    remotes.get(&node.name).ok_or_else(|| failed(node, "connect", &SshError::Lost))
}

/// Through the very `zsha stop` of a node.
async fn stop(document: &HaCluster, node: &Node, remote: &Remote, guest: Duration) -> Result<(), Failure> {
    match steps::look(remote, document).await.map_err(|error| failed(node, "look", &error))? {
        // Nothing was ever asked to run.
        Look::NoCluster => return Ok(()),
        Look::Seen(_) => {}
        Look::Unknown(why) => {
            return Err(
                refused("the VM cannot be shut down").cause(format!("{} {}: {why}", node.address, node.name))
            );
        }
    }
    let script = format!(
        "{} --cluster {} stop --timeout {}s -o json -m 'zsha uninstall'",
        layout::ZSHA,
        quoted(document.name().as_str()),
        guest.as_secs()
    );
    let printed = remote.attempt(&script, &[], guest + BESIDE).await;
    let printed = printed.map_err(|error| failed(node, "zsha stop", &error))?;
    if printed.status == 0 {
        return Ok(());
    }
    let (_, message) = steps::failure(&printed.stderr);
    Err(refused("the VM is not shut down").cause(message))
}

/// Fails if a QEMU of the VM runs on the node. It looks at the node's own process table, since every QEMU carries the
/// VM's UUID in its command line.
async fn gone(document: &HaCluster, node: &Node, remote: &Remote) -> Result<(), Failure> {
    let uuid = document.vm().uuid;
    let script = format!(
        "for process in /proc/[0-9]*; do\n  case $(cat \"$process/comm\" 2>/dev/null) in qemu*) ;; *) continue ;; esac\n  \
         if tr '\\0' '\\n' <\"$process/cmdline\" 2>/dev/null | grep -qF {uuid}; then echo \"${{process#/proc/}}\"; fi\ndone"
    );
    let printed =
        remote.run(&script, &[], SHORT).await.map_err(|error| failed(node, "look for the VM", &error))?;
    match printed.text().trim() {
        "" => Ok(()),
        pids => Err(refused("the VM is still there").cause(format!(
            "{} {}: QEMU runs it, process {}",
            node.address,
            node.name,
            pids.replace('\n', ", ")
        ))),
    }
}

fn refused(what: &str) -> Failure {
    Failure::new(Exit::Refused, "VmRuns", format!("{what}, and nothing was removed"))
        .hint("`zsha stop` shuts it down; `zsha status` says what it waits for")
}

fn failed(node: &Node, what: &str, error: &SshError) -> Failure {
    Failure::new(Exit::General, "NodeFailed", format!("{} {}: {what}: it failed", node.address, node.name))
        .cause(error.to_string())
        .hint("mend it, and run the same command again: it goes on from there")
}

/// The directory where libvirt keeps the domains that are to be there after a boot.
const LIBVIRTS_DEFINITIONS: &str = "/etc/libvirt/qemu";

fn stop_services() -> String {
    format!(
        "for unit in {} {} {}; do\n  ! systemctl cat \"$unit\" >/dev/null 2>&1 || systemctl disable -q --now \"$unit\" || exit\ndone",
        layout::HOST_SERVICE,
        layout::SERVICES[1],
        layout::SERVICES[0]
    )
}

/// The script that removes what somebody, or an earlier version, has left defined. It removes the definition alone: the
/// VM does not run, and its disk is not libvirt's. It goes by the UUID, since a domain that only has the name is
/// somebody else's. A libvirt that does not answer has said nothing: then the script fails if libvirt keeps a
/// definition of that name.
fn undefine(cluster: &str, kept: &str) -> String {
    let Ok(cluster) = cluster.parse() else { return String::new() };
    let VmId { name, uuid } = VmId::of(&cluster);
    let virsh = "virsh -q -c qemu:///system";
    format!(
        "if said=$(LC_ALL=C {virsh} list --all --uuid 2>&1); then\n  \
         case $said in *{uuid}*)\n  \
         {virsh} undefine {uuid} --managed-save --snapshots-metadata --checkpoints-metadata --nvram >/dev/null 2>&1 || \
         {virsh} undefine {uuid} --managed-save --snapshots-metadata >/dev/null ;;\n  esac\n\
         elif [ -e {kept}/{name}.xml ]; then\n  \
         echo \"libvirt does not say what it has of {name}, whose definition is in {kept}: $said\" >&2; exit 1\nfi\n"
    )
}

/// The record of what was made goes last: what breaks off is gone on with.
fn clean(installed: &Installed, ceph: &CephLogin) -> String {
    let mut script = String::from("set -e\n");
    let stop =
        |unit: &str| format!("! systemctl cat {unit} >/dev/null 2>&1 || systemctl disable -q --now {unit}\n");
    script.push_str(&undefine(&installed.cluster, LIBVIRTS_DEFINITIONS));
    if installed.ceph {
        script.push_str(&ceph.forget());
    }
    script.push_str(&stop(layout::FIREWALL_SERVICE));
    if installed.consul {
        script.push_str(&stop(layout::CONSUL_SERVICE));
    }
    let consuls = |file: &&str| layout::CONSULS_FILES.contains(file);
    let goes = |file: &&str| {
        !consuls(file) || (installed.consul && (*file != layout::CONSUL || installed.consul_program))
    };
    for file in layout::FILES.into_iter().filter(goes) {
        let _ = writeln!(script, "rm -f {}", quoted(file));
    }
    if installed.consul {
        let _ = writeln!(script, "rm -rf {}", layout::CONSUL_DATA);
    }
    if installed.consul_user {
        script.push_str("! id -u consul >/dev/null 2>&1 || userdel consul\n");
    }
    if installed.masked_libvirt_guests {
        script.push_str("systemctl unmask -q libvirt-guests\n");
    }
    let _ = write!(
        script,
        "rm -rf /run/zsha {}\nrm -f {logs}/zsha-*.log\nrmdir {logs} 2>/dev/null || :\n\
         systemctl daemon-reload\nsystemctl reset-failed 'zsha-*' 2>/dev/null || :\n\
         rm -f {}\nrmdir /etc/zsha /etc/consul.d /usr/lib/zsha 2>/dev/null || :\n",
        layout::STATE,
        layout::INSTALLED,
        logs = layout::LOGS,
    );
    script
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// Runs the script with a `virsh` that writes down what it is asked and prints `says`; the commands that match
    /// `succeeds` succeed. Returns how the script ended, and what was asked.
    fn asked_of(succeeds: &str, says: &str, script: &str) -> (bool, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let virsh = directory.path().join("virsh");
        let log = directory.path().join("log");
        let text = format!(
            "#!/bin/sh\necho \"$*\" >>{}\necho '{says}'\ncase \"$*\" in {succeeds}) ;; *) exit 1 ;; esac\n",
            log.display()
        );
        std::fs::write(&virsh, text).unwrap();
        std::fs::set_permissions(&virsh, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", directory.path().display());
        let status = Command::new("/bin/sh").args(["-ec", script]).env("PATH", path).status().unwrap();
        let log = std::fs::read_to_string(log).unwrap_or_default();
        (status.success(), log.lines().map(str::to_owned).collect())
    }

    const LIST: &str = "-q -c qemu:///system list --all --uuid";
    const SILENT: &str = "error: failed to connect to the hypervisor";

    #[test]
    fn a_definition_that_was_left_is_removed_by_the_uuid_of_this_cluster_alone() {
        let script = undefine("prod", "/nowhere");
        let uuid = VmId::of(&"prod".parse().unwrap()).uuid.to_string();
        let (done, asked) = asked_of("*", &uuid, &script);
        assert!(done && asked.len() == 2 && asked[0] == LIST, "{asked:?}");
        assert!(asked[1].contains(&format!("undefine {uuid} --managed-save")), "{asked:?}");
        // Another's is nothing to do, and what cannot be removed is said.
        let others = "173de36b-4a5d-458e-a5e3-9a99584551ef";
        assert_eq!(asked_of("*", others, &script), (true, vec![LIST.to_owned()]));
        let (done, asked) = asked_of("*list*", &uuid, &script);
        assert!(!done && asked.len() == 3, "{asked:?}");
    }

    #[test]
    fn a_libvirt_that_does_not_answer_has_no_definition_only_where_none_is_on_the_disk() {
        let kept = tempfile::tempdir().unwrap();
        let script = undefine("prod", &kept.path().display().to_string());
        assert!(asked_of("nothing", SILENT, &script).0);
        std::fs::write(kept.path().join("mnvm.xml"), "<domain/>").unwrap();
        assert!(!asked_of("nothing", SILENT, &script).0);
        assert!(asked_of("*", "", &script).0, "it is another's");
    }
}
