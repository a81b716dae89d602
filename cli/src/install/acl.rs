//! Consul's tokens: who may do what. All of it runs on a node with its own `consul`; a token is written there by the
//! shell itself, and never stands in a command line.

use zsha_crds::ClusterName;
use zsha_crds::document::Node;

use super::layout;
use super::ssh::{Remote, SshError};
use super::waits::{CONSUL, SHORT, until};

/// The environment of every `consul` command: the agent of the node, and the token that may do everything, where there
/// is one.
pub(crate) const ENVIRONMENT: &str = "export CONSUL_HTTP_ADDR=http://127.0.0.1:8500\n\
    [ ! -e /etc/zsha/management.token ] || export CONSUL_HTTP_TOKEN_FILE=/etc/zsha/management.token\n";

/// The one token that may everything, made once in a cluster's life, as soon as there is a leader to ask.
pub(crate) async fn bootstrap(remote: &Remote) -> Result<(), SshError> {
    let script = format!(
        "{ENVIRONMENT}set -eu\numask 077\nmade=$(consul acl bootstrap -format=json)\n\
         secret=$(printf '%s\\n' \"$made\" | sed -n 's/.*\"SecretID\": *\"\\([^\"]*\\)\".*/\\1/p')\n\
         [ -n \"$secret\" ] || {{ echo 'consul acl bootstrap named no token' >&2; exit 1; }}\n\
         new=$(mktemp /etc/zsha/.zsha.XXXXXX)\nprintf %s \"$secret\" >\"$new\"\nsync \"$new\"\nmv -f \"$new\" {}",
        layout::MANAGEMENT_TOKEN
    );
    until(CONSUL, || async {
        let tried = remote.attempt(&script, &[], SHORT).await?;
        // Without a leader, before a client knows a server, or while the servers still agree on it, it is too early. That
        // it was done before is final, and so is everything else; a client tells of either as an error of its call.
        let early = [
            "No cluster leader",
            "No known Consul servers",
            "legacy mode",
            "must all be running",
            "connection refused",
            "rpc error",
        ];
        match tried.status {
            0 => Ok(Some(())),
            _ if !tried.stderr.contains("no longer allowed")
                && early.iter().any(|word| tried.stderr.contains(word)) =>
            {
                Ok(None)
            }
            status => Err(SshError::Script { status, stderr: tried.stderr }),
        }
    })
    .await
}

/// Reads the token that may everything; none where the node has none.
pub(crate) async fn management_token(remote: &Remote) -> Result<Option<String>, SshError> {
    let script = format!("[ ! -e {0} ] || cat {0}", layout::MANAGEMENT_TOKEN);
    let text = remote.run(&script, &[], SHORT).await?.text();
    Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// Puts the three policies in force, as far as they are not. True: something was changed.
pub(crate) async fn policies(remote: &Remote, cluster: &ClusterName) -> Result<bool, SshError> {
    let listed = remote.run(&format!("{ENVIRONMENT}consul acl policy list -format=json"), &[], SHORT).await?;
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    let id_of = |name: &str| {
        let named = listed.as_array().into_iter().flatten().find(|policy| policy["Name"] == name);
        named.and_then(|policy| policy["ID"].as_str()).map(str::to_owned)
    };
    let mut changed = false;
    for (name, rules) in layout::policies(cluster) {
        let verb = match id_of(name) {
            None => "create".to_owned(),
            Some(id) => {
                let read = format!("{ENVIRONMENT}consul acl policy read -id {id} -format=json");
                let read = remote.run(&read, &[], SHORT).await?;
                let read: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap_or_default();
                if read["Rules"].as_str().map(str::trim) == Some(rules.trim()) {
                    continue;
                }
                format!("update -id {id}")
            }
        };
        let write = format!("{ENVIRONMENT}consul acl policy {verb} -name {name} -rules - >/dev/null");
        remote.run(&write, rules.as_bytes(), SHORT).await?;
        changed = true;
    }
    Ok(changed)
}

/// A token for the node's keeper, controller and agent, and one for whoever operates from there.
pub(crate) async fn make_tokens(remote: &Remote, node: &Node) -> Result<(), SshError> {
    let script = format!(
        "{ENVIRONMENT}set -eu\numask 077\nname={name}\n\
         make() {{\n  made=$(consul acl token create -format=json \"$@\")\n  \
         printf '%s\\n' \"$made\" | sed -n 's/.*\"SecretID\": *\"\\([^\"]*\\)\".*/\\1/p'\n}}\n\
         put() {{\n  new=$(mktemp \"${{1%/*}}/.zsha.XXXXXX\")\n  printf '%s' \"$2\" >\"$new\"\n  \
         chown \"$3\" \"$new\"\n  sync \"$new\"\n  mv -f \"$new\" \"$1\"\n}}\n\
         node=$(make -description \"zsha node $name\" -policy-name zsha-node -node-identity \"$name:{dc}\")\n\
         operator=$(make -description \"zsha operator on $name\" -policy-name zsha-operator)\n\
         [ -n \"$node\" ] && [ -n \"$operator\" ] || {{ echo 'consul named no token' >&2; exit 1; }}\n\
         {due}put {operator_file} \"$operator\" root:root\nput {node_file} \"$node\" root:root\n\
         put {agent_file} \"acl {{\n  tokens {{\n    agent = \\\"$node\\\"\n  }}\n}}\n\" consul:consul\n\
         systemctl reload consul",
        name = node.name,
        due = layout::Part::Zsha.mark_due(),
        dc = layout::DATACENTER,
        operator_file = layout::OPERATOR_TOKEN,
        node_file = layout::NODE_TOKEN,
        agent_file = layout::CONSUL_TOKEN,
    );
    remote.run(&script, &[], SHORT).await.map(drop)
}
