//! Whether a host shows the key that it is known by.

use std::path::{Path, PathBuf};

use russh::client;
use russh::keys::known_hosts::{known_host_keys_path, learn_known_hosts_path};
use russh::keys::{Algorithm, PublicKey, PublicKeyOrCertificate};

use super::super::{Login, SshError};

/// Checks the key that a host shows.
pub(super) struct HostKey {
    host: String,
    port: u16,
    file: PathBuf,
    recorded: Vec<PublicKey>,
    accept_new: bool,
}

impl HostKey {
    pub(super) fn of(host: &str, login: &Login) -> Result<Self, SshError> {
        let file = login.known_hosts.clone();
        let recorded = recorded(host, login.port, &file)?;
        Ok(Self {
            host: host.to_owned(),
            port: login.port,
            file,
            recorded,
            accept_new: login.accept_new_host_keys,
        })
    }

    /// The kinds of key that the host is to show: one that has several keys is asked for one that is known.
    pub(super) fn kinds(&self, all: &[Algorithm]) -> Result<Vec<Algorithm>, SshError> {
        let checked: Vec<Algorithm> = all.iter().filter(|kind| !(*kind).clone().is_rsa()).cloned().collect();
        if self.recorded.is_empty() {
            return Ok(checked);
        }
        if self.recorded.iter().all(|key| key.algorithm().is_rsa()) {
            let (host, file) = (self.host.clone(), self.file.clone());
            return Err(SshError::OnlyRsaKnown { host, port: self.port, file });
        }
        let is_known = |kind: &&Algorithm| self.recorded.iter().any(|key| key.algorithm() == **kind);
        Ok(checked.iter().filter(is_known).cloned().collect())
    }
}

fn recorded(host: &str, port: u16, file: &Path) -> Result<Vec<PublicKey>, SshError> {
    let unusable =
        |source: russh::keys::Error| SshError::KnownHosts { file: file.to_owned(), source: source.into() };
    // The library takes a file that it may not read for one that names nobody.
    if let Err(error) = std::fs::File::open(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(unusable(error.into()));
    }
    let keys = known_host_keys_path(host, port, file).map_err(unusable)?;
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

impl client::Handler for HostKey {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let fingerprint = key.fingerprint(russh::keys::HashAlg::Sha256).to_string();
        let file = self.file.clone();
        if self.recorded.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(true);
        }
        // A known host with a key of another kind is not a new host.
        if !self.recorded.is_empty() {
            return Err(SshError::ChangedHost { file, fingerprint });
        }
        if !self.accept_new {
            return Err(SshError::UnknownHost { file, fingerprint });
        }
        learn_known_hosts_path(&self.host, self.port, key, &file)
            .map_err(|source| SshError::KnownHosts { file, source: source.into() })?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(base64: &str) -> PublicKeyOrCertificate {
        let key = russh::keys::parse_public_key_base64(base64).unwrap();
        PublicKeyOrCertificate::PublicKey { key, hash_alg: None }
    }

    fn login(file: &Path, accept_new_host_keys: bool) -> Login {
        Login {
            user: "root".into(),
            port: 22,
            password: None,
            identities: Vec::new(),
            known_hosts: file.to_owned(),
            accept_new_host_keys,
        }
    }

    async fn shown(host: &str, base64: &str, login: &Login) -> Result<bool, SshError> {
        use client::Handler;
        HostKey::of(host, login)?.check_server_key(&key(base64)).await
    }

    #[tokio::test]
    async fn a_host_is_taken_by_its_key_and_a_new_one_only_where_that_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ssh/known_hosts");
        let unknown = shown("10.0.0.1", ED, &login(&file, false)).await;
        assert!(matches!(unknown, Err(SshError::UnknownHost { .. })), "{unknown:?}");
        assert!(!file.exists(), "nothing is learnt by a refusal");
        assert!(shown("10.0.0.1", ED, &login(&file, true)).await.unwrap());
        assert!(shown("10.0.0.1", ED, &login(&file, false)).await.unwrap(), "it was learnt");
        let changed = shown("10.0.0.1", OTHER, &login(&file, true)).await;
        assert!(
            matches!(changed, Err(SshError::ChangedHost { .. })),
            "not by --accept-new-host-keys: {changed:?}"
        );
        let another = shown("10.0.0.2", ED, &login(&file, false)).await;
        assert!(matches!(another, Err(SshError::UnknownHost { .. })), "{another:?}");
    }

    #[tokio::test]
    async fn a_host_of_which_only_an_rsa_key_is_known_is_said_to_be_one_and_another_is_asked_for_no_such_key()
    {
        const RSA: &str = "AAAAB3NzaC1yc2EAAAADAQABAAABAQCuPQpxR/nEcxYYWkj+WyhMKpT0FRjJWBOjv77tj+aSL4Vf1jyXkPKaH2Fob5zWA0ha87T4wu9gTpEQ63hyYtHmoBwoWJdxuzQKDz0vObsYDyzNpjfPF9IOAG/nBhV1q2YCwyJsj5bMZsGuTCKhZbd8If2m9p3zVk1izB/OoWm9lPIdaJVScw5l1QzEfqcEvfKKy6ES+lI6GT4Q+686VeZIxgZEoWsHhk7SpnwkICkqg7Xs3/r+S5KoIbD2MemERk8JPOZSZYKefozTRNr8Yaxw7n5USwpXXUz7PsQUkZfN2L25TsvIhfX1yYOxFcIbjzVS1LBQ/UMzLZUR2nbI/H5B";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        let kinds = |lines: &str| {
            std::fs::write(&file, lines).unwrap();
            HostKey::of("10.0.0.1", &login(&file, false)).unwrap().kinds(&russh::Preferred::DEFAULT.key)
        };
        let of_a_new_host = kinds("").unwrap();
        assert!(of_a_new_host.contains(&Algorithm::Ed25519));
        assert!(!of_a_new_host.iter().any(|kind| kind.clone().is_rsa()));
        let rsa = format!("10.0.0.1 ssh-rsa {RSA}\n");
        let only_rsa = kinds(&rsa).unwrap_err();
        assert!(matches!(only_rsa, SshError::OnlyRsaKnown { .. }), "{only_rsa:?}");
        assert!(only_rsa.hint().unwrap().contains("ssh-keyscan -p 22 -t ed25519 10.0.0.1 >> "));
        assert_eq!(kinds(&format!("{rsa}10.0.0.1 ssh-ed25519 {ED}\n")).unwrap(), [Algorithm::Ed25519]);
    }
}
