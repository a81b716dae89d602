//! Being let in: by a password, a key in a file, or an agent.

use std::path::Path;
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Asked};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, load_secret_key};

use super::super::{Login, SshError};
use super::HostKey;

pub(super) async fn authenticate(handle: &mut Handle<HostKey>, login: &Login) -> Result<(), SshError> {
    let mut tried = Vec::new();
    if let Some(password) = &login.password {
        if handle.authenticate_password(&login.user, password).await?.success()
            || by_questions(handle, &login.user, password).await?
        {
            return Ok(());
        }
        tried.push("password".to_owned());
    } else {
        for file in &login.identities {
            match private_key(file) {
                Ok(key) => {
                    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
                    if handle.authenticate_publickey(&login.user, key).await?.success() {
                        return Ok(());
                    }
                    tried.push(format!("key {}", file.display()));
                }
                Err(why) => tried.push(format!("key {} {why}", file.display())),
            }
        }
        match by_agent(handle, &login.user).await? {
            Agent::LetIn => return Ok(()),
            Agent::Refused(keys) => tried.push(format!("{keys} keys of the agent")),
            Agent::None => tried.push("no agent".to_owned()),
        }
    }
    Err(SshError::Refused { user: login.user.clone(), tried: tried.join(", ") })
}

/// A key that can be signed with here; or why there is none.
fn private_key(file: &Path) -> Result<PrivateKey, String> {
    let rsa = || "not offered, being an RSA key".to_owned();
    match load_secret_key(file, None) {
        Ok(key) if key.algorithm().is_rsa() => Err(rsa()),
        Ok(key) => Ok(key),
        Err(russh::keys::Error::UnsupportedKeyType { key_type_string, .. }) if key_type_string == "RSA" => {
            Err(rsa())
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Some servers take a password only as the answer to a question.
async fn by_questions(handle: &mut Handle<HostKey>, user: &str, password: &str) -> Result<bool, SshError> {
    /// A server that goes on asking wants something else.
    const MOST_ROUNDS: usize = 4;
    let mut asked = handle.authenticate_keyboard_interactive_start(user, None).await?;
    for _ in 0..MOST_ROUNDS {
        match asked {
            Asked::Success => return Ok(true),
            Asked::Failure { .. } => return Ok(false),
            Asked::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.to_owned()).collect();
                asked = handle.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(false)
}

enum Agent {
    LetIn,
    Refused(usize),
    None,
}

async fn by_agent(handle: &mut Handle<HostKey>, user: &str) -> Result<Agent, SshError> {
    let Ok(mut agent) = AgentClient::connect_env().await else { return Ok(Agent::None) };
    let Ok(identities) = agent.request_identities().await else { return Ok(Agent::None) };
    let hash = handle.best_supported_rsa_hash().await?.flatten();
    let mut offered = 0;
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        offered += 1;
        let hash = if key.algorithm().is_rsa() { hash } else { None };
        let done = handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
        // An agent that will not sign with one key may with the next.
        if matches!(done, Ok(AuthResult::Success)) {
            return Ok(Agent::LetIn);
        }
    }
    Ok(Agent::Refused(offered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsa_key_in_a_file_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        for (file, form) in [("id_rsa", "RFC4716"), ("old_rsa", "PEM")] {
            let file = dir.path().join(file);
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-m", form, "-f"])
                .arg(&file)
                .status()
                .expect("ssh-keygen is there: `make setup` brings it");
            assert!(made.success());
            assert_eq!(private_key(&file).unwrap_err(), "not offered, being an RSA key", "{form}");
        }
    }
}
