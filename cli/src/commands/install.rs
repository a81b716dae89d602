//! `zsha install`: the nodes of a document made into a cluster, or brought to this build. It knows the order; what has
//! to be done on a node says the plan.
//!
//! Connect to all, look at all, and only then begin. Where a node fails the others are not begun; the same command goes
//! on from there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use zsha_crds::document::Node;
use zsha_crds::status::ClusterStatus;
use zsha_crds::{HaCluster, NodeName, normalise};

use super::completion::{self, For};
use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::input;
use crate::install::acl;
use crate::install::ceph::CephLogin;
use crate::install::facts::Facts;
use crate::install::given;
use crate::install::layout::{self, Choice, Completions, Programs};
use crate::install::login::{self, Remotes};
use crate::install::nodes::{self, Nodes};
use crate::install::plan::{Consul, Given, OnNode, Plan, Step, consul_of, plan};
use crate::install::preflight::{self, Wish};
use crate::install::ssh::SshError;
use crate::install::steps::{self, Look, OnRemote, Secrets};
use crate::install::told::{self, End, Told};
use crate::install::waits::SHORT;
use crate::output::form::Form;
use crate::session::Session;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Run it again after whatever went wrong: it goes on, and changes nothing that is right. With a new build \
                  it is the upgrade, node by node, the VM's node last; the VM goes on. A node that was replaced is set up by \
                  it too.\n\nThe programs to send are `zsha-controller` beside this very `zsha`, and this one."
)]
pub struct Args {
    /// The document: YAML, JSON, or the config.json of zsha 2.5.1
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: String,
    /// Look at every node and list what would be done; do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The program `consul` to send where there is none [default: the one beside this zsha]
    #[arg(long = "consul-program", value_name = "FILE")]
    pub consul_program: Option<PathBuf>,
    /// A YAML file with more keys for every node's /etc/zsha/controller.yaml, such as migrationUri
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Consul without tokens: whoever reaches its port on a node's loopback may write
    #[arg(long)]
    pub no_acl: bool,
    /// Put the document in force even where it restarts or moves the VM
    #[arg(short, long)]
    pub yes: bool,
    #[arg(short, long, value_name = "FORM", default_value = "text", value_parser = told::forms())]
    pub output: Form,
    #[command(flatten)]
    pub login: login::Args,
}

/// What stays the same from the first look to the last step.
struct Work<'a> {
    args: &'a Args,
    told: Told,
    document: HaCluster,
    programs: Programs,
    choice: Choice,
    remotes: Remotes,
    facts: BTreeMap<NodeName, Facts>,
}

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        false
    }

    fn wants_json(&self) -> bool {
        self.output.is_json()
    }

    fn is_endless(&self) -> bool {
        true
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.global, completions(beside.definition), session).await
    }
}

async fn run(
    args: &Args,
    global: &Global,
    completions: Completions,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let told = Told { json: args.output.is_json() };
    let decoded = input::document(&args.config, global.cluster.as_ref(), None, session).await?;
    input::warn(session, &decoded.warnings)?;
    let document = decoded.cluster;
    told.line(session, None, "config file check pass")?;
    let programs = given::programs(args.consul_program.as_deref(), completions)?;
    let choice = Choice { acl: !args.no_acl, settings: given::settings(args.settings.as_deref())? };
    let wish = Wish { document: &document, choice: &choice, sends_consul: programs.consul.is_some() };
    let nodes = Nodes::open(&document, &preflight::ports(&wish), &args.login, told, session).await?;
    nodes.judge(&wish, told, session)?;
    let Nodes { remotes, facts } = nodes;
    let work = Work { args, told, document, programs, choice, remotes, facts };
    let status = work.cluster().await?;
    let plan = work.plan(status.as_ref()).await?;
    if args.dry_run {
        return work.show(&plan, session);
    }
    work.carry_out(&plan, session).await?;
    let applied = work.apply(session).await?;
    work.see_running(session).await?;
    let changed = applied || !plan.is_empty();
    if !changed {
        told.line(session, None, "Nothing was to be done: every node is as it has to be.")?;
    }
    told.line(session, None, "Install to All Nodes Finished.")?;
    if !told.json {
        session.output.tell(
            "Now, you can monitor zsha's status by using the command \"zsha status\".\n\
             More commands are shown in \"zsha -h\".",
        )?;
    }
    told.end(session, "InstallResult", End::of(changed))?;
    Ok(Exit::Success)
}

fn completions(definition: fn() -> clap::Command) -> Completions {
    let script = |shell| completion::script(shell, definition());
    Completions { bash: script(For::Bash), zsh: script(For::Zsh), fish: script(For::Fish) }
}

impl Work<'_> {
    /// The cluster as it runs; none where nothing of it does yet. Where it runs and cannot be seen nothing is begun:
    /// where the VM is would not be known.
    async fn cluster(&self) -> Result<Option<ClusterStatus>, Failure> {
        let mut unknown = None;
        for node in self.running() {
            let Some(remote) = self.remotes.get(&node.name) else { continue };
            match steps::look(remote, &self.document)
                .await
                .map_err(|error| self.failed(node, "look", &error))?
            {
                Look::Seen(status) => return Ok(Some(*status)),
                Look::NoCluster => return Ok(None),
                Look::Unknown(why) => unknown = Some(format!("{} {}: {why}", node.address, node.name)),
            }
        }
        match unknown {
            None => Ok(None),
            Some(why) => {
                let message =
                    "zsha runs there and cannot say where the VM is, and nothing was done on any node";
                Err(Failure::new(Exit::Unavailable, "StoreUnavailable", message)
                    .cause(why)
                    .hint("look at `zsha status` and `systemctl status consul` there"))
            }
        }
    }

    /// Nodes whose keeper runs.
    fn running(&self) -> impl Iterator<Item = &Node> {
        let runs = |facts: &Facts| facts.units.get(layout::SERVICES[0]).is_some_and(|unit| unit.is_active());
        self.document.nodes().iter().filter(move |node| self.facts.get(&node.name).is_some_and(runs))
    }

    async fn plan(&self, status: Option<&ClusterStatus>) -> Result<Plan, Failure> {
        let gossip = self.gossip_key().await?;
        Ok(plan(&Given {
            document: &self.document,
            facts: &self.facts,
            programs: &self.programs,
            choice: &self.choice,
            gossip: &gossip,
            owner: status.and_then(|status| status.vm.node.as_ref()),
            in_force: status.is_some(),
        }))
    }

    /// The one that a node has already, else a new one.
    async fn gossip_key(&self) -> Result<String, Failure> {
        let has = |node: &&Node| {
            self.facts.get(&node.name).is_some_and(|facts| facts.files.contains_key(layout::CONSUL_GOSSIP))
        };
        let nodes = self.document.nodes();
        let (node, script) = match nodes.iter().find(has) {
            Some(node) => {
                (node, format!("sed -n 's/^encrypt *= *\"\\([^\"]*\\)\"$/\\1/p' {}", layout::CONSUL_GOSSIP))
            }
            None => (&nodes[0], "head -c 32 /dev/urandom | base64".to_owned()),
        };
        let printed = self.on(node)?.remote.run(&script, &[], SHORT).await;
        let key =
            printed.map_err(|error| self.failed(node, "the gossip key", &error))?.text().trim().to_owned();
        if key.is_empty() {
            let message = format!("{} on {} names no key", layout::CONSUL_GOSSIP, node.address);
            return Err(Failure::new(Exit::General, "NoGossipKey", message)
                .hint("copy the file from another node, and run this again"));
        }
        Ok(key)
    }

    // --- what is done

    fn show(&self, plan: &Plan, session: &mut Session<'_>) -> Result<Exit, Failure> {
        for on in plan.consul.iter().chain(&plan.zsha) {
            for step in &on.steps {
                if let Some(line) = steps::line(step, &on.node) {
                    self.told.line(session, Some(&on.node), &format!("would: {line}"))?;
                }
            }
        }
        if let (Some(_), Some(login)) = (&plan.ceph, CephLogin::of(&self.document)) {
            self.told.line(session, None, &format!("would: Generate ceph auth for {}", login.client()))?;
        }
        let end = if plan.is_empty() {
            "Nothing would be done: every node is as it has to be."
        } else {
            "Nothing was done (dry run)."
        };
        self.told.line(session, None, end)?;
        self.told.end(session, "InstallResult", End::OnlyLooked)?;
        Ok(Exit::Success)
    }

    async fn carry_out(&self, plan: &Plan, session: &mut Session<'_>) -> Result<(), Failure> {
        for on in &plan.consul {
            self.steps(on, &Secrets::default(), session).await?;
        }
        // Before that it could have started its VM at any moment.
        if plan.consul.iter().flat_map(|on| &on.steps).any(|step| matches!(step, Step::StopOld(_))) {
            nodes::no_second_copy(&self.document, &self.remotes, session.clock).await?;
        }
        let management = self.tokens(plan, session).await?;
        let secrets = Secrets { management, ceph: self.ceph_key(plan, session).await? };
        for on in plan.zsha.iter().filter(|on| !on.steps.is_empty()) {
            self.told.line(session, Some(&on.node), &format!("Install for: {}", on.node.address))?;
            self.steps(on, &secrets, session).await?;
            self.told.line(session, Some(&on.node), "Install to Current Node Finished.")?;
            self.told.gap(session)?;
        }
        Ok(())
    }

    async fn steps(&self, on: &OnNode, secrets: &Secrets, session: &mut Session<'_>) -> Result<(), Failure> {
        let hands = self.on(&on.node)?;
        for step in &on.steps {
            let what = steps::line(step, &on.node).unwrap_or_else(|| match step {
                Step::MakeConsulUser => "make the user consul".into(),
                Step::CopyManagementToken => "copy the management token, and see Consul there".into(),
                _ => format!("write {}", layout::INSTALLED),
            });
            hands.carry_out(step, secrets).await.map_err(|error| self.failed(&on.node, &what, &error))?;
            if let Some(line) = steps::line(step, &on.node) {
                self.told.line(session, Some(&on.node), &line)?;
            }
        }
        Ok(())
    }

    /// The management token and the policies, where tokens are ours to make. Consul has a leader after it.
    async fn tokens(&self, plan: &Plan, session: &mut Session<'_>) -> Result<Option<String>, Failure> {
        let ours = self.facts.values().all(|facts| consul_of(facts) == Consul::Ours);
        if !ours || !self.choice.acl {
            for node in self.document.nodes() {
                let seen = self.on(node)?.see_consul().await;
                seen.map_err(|error| self.failed(node, "see that Consul has a leader", &error))?;
            }
            return Ok(None);
        }
        let has = |node: &&Node| {
            self.facts.get(&node.name).is_some_and(|facts| facts.files.contains_key(layout::MANAGEMENT_TOKEN))
        };
        let nodes = self.document.nodes();
        let node = nodes.iter().find(has).unwrap_or(&nodes[0]);
        let hands = self.on(node)?;
        if plan.bootstrap_acl {
            let done = acl::bootstrap(hands.remote).await;
            done.map_err(|error| self.failed(node, "consul acl bootstrap", &error))?;
            self.told.line(session, None, "Consul has a leader, and its tokens are in force.")?;
        }
        let changed = async {
            hands.see_consul().await?;
            acl::policies(hands.remote, self.document.name()).await
        };
        if changed.await.map_err(|error| self.failed(node, "Consul's policies", &error))? {
            self.told.line(session, None, "Policies zsha-viewer, zsha-operator, zsha-node are in force.")?;
        }
        let token = acl::management_token(hands.remote).await;
        token.map_err(|error| self.failed(node, "read the management token", &error))
    }

    /// The cluster's user in Ceph and its key, where a node is to have it.
    async fn ceph_key(
        &self,
        plan: &Plan,
        session: &mut Session<'_>,
    ) -> Result<Option<(CephLogin, String)>, Failure> {
        let Some(login) = CephLogin::of(&self.document) else {
            self.told.line(session, None, "Not Ceph Type, skip generate ceph auth.")?;
            return Ok(None);
        };
        let Some(node) = &plan.ceph else {
            self.told.line(session, None, "Every node has its ceph auth, skip generate ceph auth.")?;
            return Ok(None);
        };
        let made = login.make(self.on(node)?.remote).await;
        let key = made.map_err(|error| self.failed(node, "generate ceph auth", &error))?;
        self.told.line(session, Some(node), &format!("Generate ceph auth for {}", login.client()))?;
        Ok(Some((login, key)))
    }

    /// Through the very `zsha apply` of a node, which has a token for it. True: something was written.
    async fn apply(&self, session: &mut Session<'_>) -> Result<bool, Failure> {
        let node = &self.document.nodes()[0];
        let script = format!(
            "{} --timeout 60s apply -f - -o json -m 'zsha install'{}",
            layout::ZSHA,
            if self.args.yes { " --yes" } else { "" }
        );
        let text = normalise::normalised(&self.document).to_string();
        let printed = self.on(node)?.remote.attempt(&script, text.as_bytes(), 2 * SHORT).await;
        let printed = printed.map_err(|error| self.failed(node, "zsha apply", &error))?;
        if printed.status != 0 {
            let (_, message) = steps::failure(&printed.stderr);
            let exit = Exit::ALL.into_iter().find(|exit| u32::from(exit.code()) == printed.status);
            return Err(Failure::new(
                exit.unwrap_or(Exit::General),
                "NotApplied",
                "the document is not in force",
            )
            .cause(message)
            .hint(format!(
                "zsha diff -f {0}, then zsha apply -f {0}; or install again with --yes",
                self.args.config
            )));
        }
        let result: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap_or_default();
        self.told.line(session, None, "Upsert configuration to consul kv finished.")?;
        Ok(result["changed"] == true)
    }

    /// Every node has renewed its lease and its controller lives.
    async fn see_running(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        let node = &self.document.nodes()[0];
        for one in self.document.nodes() {
            let hands = OnRemote { node: one, ..self.on(node)? };
            let seen = hands.carry_out(&Step::SeeHealthy, &Secrets::default()).await;
            seen.map_err(|error| {
                let mut failure = self.failed(one, "see that it is ready", &error);
                failure.hint = Some("`zsha status` says what it lacks".into());
                failure
            })?;
        }
        self.told.line(session, None, "All nodes are ready.")
    }

    fn on<'n>(&'n self, node: &'n Node) -> Result<OnRemote<'n>, Failure> {
        let remote =
            self.remotes.get(&node.name).ok_or_else(|| self.failed(node, "connect", &SshError::Lost))?;
        Ok(OnRemote { remote, node, document: &self.document })
    }

    fn failed(&self, node: &Node, what: &str, error: &SshError) -> Failure {
        let message =
            format!("{} {}: {what}: it failed; the nodes after it were not begun", node.address, node.name);
        let failure = Failure::new(Exit::General, "NodeFailed", message).cause(error.to_string());
        failure.hint("mend it, and run the same command again: it goes on from there")
    }
}
