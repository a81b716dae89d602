//! Doing one step on one node. It decides nothing: what is done, and whether, stands in the plan.

use std::time::Duration;

use zsha_crds::HaCluster;
use zsha_crds::document::Node;
use zsha_crds::status::ClusterStatus;

use super::acl;
use super::ceph::CephLogin;
use super::layout::{self, Part, Wanted};
use super::plan::Step;
use super::ssh::{Remote, SshError, quoted};
use super::waits::{SHORT, until};

/// The time to send a program over a slow line.
const SEND: Duration = Duration::from_secs(300);
/// The time to start a service anew; systemd itself gives up stopping one after 90 s.
const SERVICE: Duration = Duration::from_secs(120);
/// The time until a node that was started anew is ready: the longest lease there is takes less.
const HEALTHY: Duration = Duration::from_secs(120);

/// A node that is worked on.
#[derive(Debug)]
pub(crate) struct OnRemote<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) node: &'a Node,
    pub(crate) document: &'a HaCluster,
}

/// The keys and tokens that some steps hand on, and nothing shows.
#[derive(Default)]
pub(crate) struct Secrets {
    /// The token that may everything, where there is one.
    pub(crate) management: Option<String>,
    /// The cluster's user in Ceph and its key, where they are ours.
    pub(crate) ceph: Option<(CephLogin, String)>,
}

/// The line that tells of a step once it is done, in the manual's words where it has some.
pub(crate) fn line(step: &Step, node: &Node) -> Option<String> {
    let at = node.address;
    let start = |anew: bool| if anew { "Restart" } else { "Start" };
    Some(match step {
        Step::StopOld(_) => format!("Stop Service consul&z for: {at}"),
        Step::Send(file) => match file.path.rsplit('/').next().unwrap_or_default() {
            _ if file.part != layout::Part::Aside => format!("Send {} to {at}", file.path),
            "zsha" => "Install bash auto-completion".to_owned(),
            "_zsha" => "Install zsh auto-completion".to_owned(),
            _ => "Install fish auto-completion".to_owned(),
        },
        Step::OpenFirewall => "Set iptables finished.".to_owned(),
        Step::Remove(path, _) => format!("Remove {path} from {at}"),
        Step::SeeSpare => format!("See that Consul keeps its quorum without {at}"),
        Step::ForgetLog => format!("Remove the old log of Consul's servers from {at}"),
        Step::LeavePeers => format!("Take {at} from Consul's servers"),
        Step::StartConsul { anew } => format!("{} Service consul for: {at}", start(*anew)),
        Step::StartZsha { anew } => format!("{} Service zsha for: {at}", start(*anew)),
        Step::WatchShutdown => format!("Guard the shutdown of: {at}"),
        Step::MakeTokens => format!("Make tokens for: {at}"),
        Step::HoldCephKey => format!("Send ceph auth to {at}"),
        Step::MaskLibvirtGuests => format!("Mask libvirt-guests for: {at}"),
        Step::SeeHealthy => format!("{at} is healthy"),
        Step::Record(_) | Step::MakeConsulUser | Step::CopyManagementToken => return None,
    })
}

impl OnRemote<'_> {
    pub(crate) async fn carry_out(&self, step: &Step, secrets: &Secrets) -> Result<(), SshError> {
        match step {
            Step::StopOld(units) => self.stop_old(units).await,
            Step::Record(installed) => {
                let text = serde_json::to_vec_pretty(installed).unwrap_or_default();
                self.send(&Wanted::new(layout::INSTALLED, "644", layout::Part::Aside, text)).await
            }
            Step::MakeConsulUser => {
                let script = format!(
                    "id -u consul >/dev/null 2>&1 || \
                     useradd --system --user-group --home-dir {} --shell /usr/sbin/nologin consul",
                    layout::CONSUL_DATA
                );
                self.script(&script, SHORT).await
            }
            Step::Send(file) => self.send(file).await,
            Step::Remove(path, part) => {
                let script = format!("set -e\n{}rm -f {path}", part.mark_due());
                self.script(&script, SHORT).await
            }
            Step::SeeSpare => self.see_spare().await,
            Step::ForgetLog => self.script(&format!("rm -rf {}/raft", layout::CONSUL_DATA), SHORT).await,
            Step::LeavePeers => self.leave_peers().await,
            Step::OpenFirewall => {
                let unit = layout::FIREWALL_SERVICE;
                let script =
                    format!("systemctl daemon-reload\nsystemctl enable -q {unit}\nsystemctl restart {unit}");
                self.script(&then_done(&script, Part::Firewall), SERVICE).await
            }
            Step::StartConsul { anew } => {
                let script = format!(
                    "set -e\ninstall -d -m 700 -o consul -g consul {}\nsystemctl daemon-reload\n\
                     systemctl enable -q consul\nsystemctl restart consul",
                    layout::CONSUL_DATA
                );
                self.script(&then_done(&script, Part::Consul), SERVICE).await?;
                if *anew { self.see_consul().await } else { Ok(()) }
            }
            Step::CopyManagementToken => {
                let token = secrets.management.as_deref().unwrap_or_default();
                let file = Wanted::new(layout::MANAGEMENT_TOKEN, "600", layout::Part::Aside, token);
                self.send(&file).await?;
                self.see_consul().await
            }
            Step::HoldCephKey => match &secrets.ceph {
                Some((login, key)) => login.hold(self.remote, key).await,
                None => Err(SshError::Script { status: 0, stderr: "no key of Ceph was made".to_owned() }),
            },
            Step::MakeTokens => acl::make_tokens(self.remote, self.node).await,
            Step::MaskLibvirtGuests => self.script("systemctl mask -q --now libvirt-guests", SERVICE).await,
            Step::StartZsha { .. } => self.script(&then_done(&restart_script(), Part::Zsha), SERVICE).await,
            Step::WatchShutdown => {
                // One that is active stays so: its stop is what makes the VM leave.
                let unit = layout::HOST_SERVICE;
                let script = format!("systemctl daemon-reload\nsystemctl enable -q --now {unit}");
                self.script(&then_done(&script, Part::Host), SERVICE).await
            }
            Step::SeeHealthy => self.see_healthy().await,
        }
    }

    async fn script(&self, script: &str, limit: Duration) -> Result<(), SshError> {
        self.remote.run(script, &[], limit).await.map(drop)
    }

    pub(crate) async fn send(&self, file: &Wanted) -> Result<(), SshError> {
        self.remote.run(&send_script(file), &file.content, SEND).await.map(drop)
    }

    /// A unit file of its own is put aside, since one of the same name is to come.
    async fn stop_old(&self, units: &[&str]) -> Result<(), SshError> {
        let script = format!(
            "set -e\nfor unit in {} consul.service; do\n  systemctl cat \"$unit\" >/dev/null 2>&1 || continue\n  \
             systemctl disable -q --now \"$unit\"\n  file=/etc/systemd/system/$unit\n  \
             [ ! -e \"$file\" ] || mv -f \"$file\" \"$file.before-zsha\"\ndone\nsystemctl daemon-reload",
            units.join(" ")
        );
        self.script(&script, SERVICE).await
    }

    async fn see_healthy(&self) -> Result<(), SshError> {
        until(HEALTHY, || async {
            let Look::Seen(status) = look(self.remote, self.document).await? else { return Ok(None) };
            let node = status.node(&self.node.name);
            Ok(node.filter(|node| node.speaks() && node.ready).map(drop))
        })
        .await
    }
}

/// The script, which has started anew what runs by this part.
fn then_done(script: &str, part: Part) -> String {
    let due = part.due().unwrap_or_default();
    format!("set -e\n{script}\nrm -f {due}")
}

/// Into a file beside it that takes its place at once: nobody ever sees half of it, and a program that runs goes
/// on with the one it was started from. A program takes that place only where it starts.
fn send_script(file: &Wanted) -> String {
    let tried = if layout::PROGRAMS.contains(&file.path) {
        see_it_start("\"$new\"", file.path, "it was not put in place, and nothing was started anew")
    } else {
        String::new()
    };
    format!(
        "set -eu\numask 077\npath={path}\ndir=${{path%/*}}\n[ -d \"$dir\" ] || install -d -m 755 \"$dir\"\n\
         new=$(mktemp \"$dir/.zsha.XXXXXX\")\ntrap 'rm -f \"$new\"' EXIT\ncat >\"$new\"\n\
         [ \"$(sha256sum <\"$new\" | cut -d' ' -f1)\" = {sha} ] || \
         {{ echo 'what arrived is not what was sent' >&2; exit 1; }}\n\
         chmod {mode} \"$new\"\nchown {owner} \"$new\"\nsync \"$new\"\n{tried}{due}mv -f \"$new\" \"$path\"",
        due = file.part.mark_due(),
        path = quoted(file.path),
        sha = file.sha256,
        mode = file.mode,
        owner = file.owner,
    )
}

/// The program is seen to start before anything is stopped: a keeper that is stopped leaves a guard behind, which
/// ends the VM where no keeper comes after it.
fn restart_script() -> String {
    let tried = see_it_start(layout::CONTROLLER, layout::CONTROLLER, "nothing was started anew");
    // One after the other: restarted in one job, the keeper is not started before the controller has stopped,
    // and the guard it leaves behind ends the VM meanwhile.
    let [keeper, controller] = layout::SERVICES;
    format!(
        "set -e\n{tried}systemctl daemon-reload\nsystemctl enable -q {keeper} {controller}\n\
         systemctl restart {keeper}\nsystemctl restart {controller}"
    )
}

/// Lines of a script that end it where a program does not so much as say its version: because a library that it was
/// built with is older there, say, or missing. `program` is a word of the shell, `name` the program's path.
fn see_it_start(program: &str, name: &str, left: &str) -> String {
    format!(
        "said=$(timeout 30 {program} --version 2>&1 >/dev/null </dev/null) || {{\n  status=$?\n  \
         said=${{said:-it ended with $status and said nothing}}\n  \
         said=$(printf %s \"$said\" | tr '\\n\\t' '  ' | cut -c1-300)\n  \
         printf '%s\\n' \"{name} does not start there, so {left}: $said. Install there what it lacks, or take a \
         build for that system\" >&2\n  exit 1\n}}\n"
    )
}

/// The cluster as a node's own `zsha status` sees it.
#[derive(Debug)]
pub(crate) enum Look {
    Seen(Box<ClusterStatus>),
    /// Consul answers, and holds nothing of this cluster.
    NoCluster,
    Unknown(String),
}

pub(crate) async fn look(remote: &Remote, document: &HaCluster) -> Result<Look, SshError> {
    let script = format!("{} --cluster {} status -o json", layout::ZSHA, quoted(document.name().as_str()));
    let printed = remote.attempt(&script, &[], SHORT).await?;
    if printed.status == 0 {
        return Ok(match serde_json::from_slice::<ClusterStatus>(&printed.stdout) {
            Ok(status) if !status.data_age.is_current() => Look::Unknown("Consul has no quorum".into()),
            Ok(status) if status.generation.is_none() => Look::NoCluster,
            Ok(status) => Look::Seen(Box::new(status)),
            Err(error) => Look::Unknown(format!("its `zsha status` cannot be read: {error}")),
        });
    }
    let (reason, message) = failure(&printed.stderr);
    Ok(match reason.as_str() {
        "NoCluster" | "NotFound" => Look::NoCluster,
        _ => Look::Unknown(message),
    })
}

/// Reason and message of a `zsha` that failed with `-o json`.
pub(crate) fn failure(stderr: &str) -> (String, String) {
    let told = stderr.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let word = |key: &str| told.as_ref().and_then(|told| told[key].as_str()).map(str::to_owned);
    let causes =
        told.as_ref().and_then(|told| told["details"]["causes"].as_array()).cloned().unwrap_or_default();
    let causes = causes.iter().filter_map(|cause| cause.as_str()).map(|cause| format!(": {cause}"));
    let message =
        word("message").map_or_else(|| stderr.trim().to_owned(), |said| said + &causes.collect::<String>());
    (word("reason").unwrap_or_default(), message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use super::*;

    const SOUND: &str = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'program 1.2.3'\n";
    const BROKEN: &str = "#!/bin/sh\necho 'libvirt.so.0: cannot open shared object file' >&2\nexit 127\n";

    fn run(script: &str, input: &[u8]) -> Output {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(input).unwrap();
        shell.wait_with_output().unwrap()
    }

    /// Writes a file as it is written on a node, but for whoever runs the test. Its marks lie beside it instead of in
    /// `/etc/zsha`.
    fn sent(path: &'static str, to: &Path, content: &str) -> Output {
        let wanted = Wanted::new(path, "755", Part::Zsha, content);
        let file = Wanted { owner: "$(id -u):$(id -g)", ..wanted };
        let etc = to.with_extension("etc");
        let script = send_script(&file).replace(path, to.to_str().unwrap());
        run(&script.replace(layout::ETC, etc.to_str().unwrap()), &file.content)
    }

    fn is_due(to: &Path) -> bool {
        let due = Part::Zsha.due().unwrap().strip_prefix(layout::ETC).unwrap();
        to.with_extension("etc").join(due.trim_start_matches('/')).exists()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_program_that_does_not_start_there_is_not_put_in_the_place_of_one_that_runs() {
        for path in layout::PROGRAMS {
            let dir = tempfile::tempdir().unwrap();
            let to = dir.path().join("program");
            std::fs::write(&to, "the one before").unwrap();
            let broken = sent(path, &to, BROKEN);
            let said = text(&broken.stderr);
            assert_eq!(broken.status.code(), Some(1), "{path}: {said}");
            assert!(
                said.contains("/program does not start there, so it was not put in place")
                    && said.contains(": libvirt.so.0: cannot open shared object file. Install")
                    && said.trim_end().lines().count() == 1,
                "{path}: {said}"
            );
            assert_eq!(std::fs::read_to_string(&to).unwrap(), "the one before", "{path}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{path}: nothing else is left");
            assert!(!is_due(&to));
            let sound = sent(path, &to, SOUND);
            assert!(sound.status.success(), "{path}: {}", text(&sound.stderr));
            assert_eq!(std::fs::read_to_string(&to).unwrap(), SOUND, "{path}");
            assert!(is_due(&to), "{path}: what runs by it is to be started anew");
        }
    }

    #[test]
    fn what_was_started_anew_is_due_no_more_and_what_was_not_still_is() {
        for (script, left) in [("true\ntrue", false), ("false\ntrue", true)] {
            let dir = tempfile::tempdir().unwrap();
            let at = |script: &str| script.replace(layout::ETC, dir.path().join("etc").to_str().unwrap());
            run(&at(&Part::Host.mark_due()), b"");
            let done = run(&at(&then_done(script, Part::Host)), b"");
            assert_eq!(done.status.success(), !left);
            assert_eq!(Path::new(&at(Part::Host.due().unwrap())).exists(), left, "{script}");
        }
    }

    #[test]
    fn a_program_that_ends_without_a_word_is_said_to_have_done_so() {
        let dir = tempfile::tempdir().unwrap();
        let ended = sent(layout::CONTROLLER, &dir.path().join("program"), "#!/bin/sh\nexit 3\n");
        assert!(text(&ended.stderr).contains(": it ended with 3 and said nothing. Install"), "{ended:?}");
    }

    #[test]
    fn a_file_that_is_no_program_of_ours_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("firewall");
        let ran = dir.path().join("ran");
        let content = format!("#!/bin/sh\n: >'{}'\nexit 1\n", ran.display());
        let done = sent("/usr/lib/zsha/firewall", &to, &content);
        assert!(done.status.success() && !ran.exists(), "{done:?}");
        assert_eq!(std::fs::read_to_string(&to).unwrap(), content);
    }

    #[test]
    fn no_service_is_started_anew_whose_program_does_not_start() {
        for (content, restarted) in [(BROKEN, 0), (SOUND, 2)] {
            let dir = tempfile::tempdir().unwrap();
            let program = quoted(dir.path().join("program").to_str().unwrap());
            // Written by the shell itself: a file that this process has open for writing cannot be run.
            let before = format!(
                "printf %s {content} >{program}\nchmod 755 {program}\nsystemctl() {{ echo \"$*\"; }}\n",
                content = quoted(content)
            );
            let done = run(&(before + &restart_script().replace(layout::CONTROLLER, &program)), b"");
            let (asked, said) = (text(&done.stdout), text(&done.stderr));
            assert_eq!(asked.matches("restart ").count(), restarted, "{asked}{said}");
            assert_eq!(done.status.success(), restarted == 2, "{asked}{said}");
            assert_eq!(
                said.contains("does not start there, so nothing was started anew"),
                restarted == 0,
                "{said}"
            );
        }
    }
}
