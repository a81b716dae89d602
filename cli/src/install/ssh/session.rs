//! One connection: made, and used to run scripts as root.

use std::sync::Arc;
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::{self, Handle};

use super::{CONNECT, Login, MOST_OUTPUT, Printed, SshError, WhyNotRoot, quoted};

mod being_let_in;
mod host_key;

use being_let_in::authenticate;
use host_key::HostKey;

/// How root's rights are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Root,
    Sudo,
    SudoWithPassword,
}

pub(crate) struct Remote {
    handle: Handle<HostKey>,
    rights: Rights,
    password: Option<String>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("rights", &self.rights).finish_non_exhaustive()
    }
}

impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error.into())
    }
}

impl Remote {
    pub(crate) async fn connect(host: &str, login: &Login) -> Result<Self, SshError> {
        let no_answer = || SshError::NoAnswer { host: host.to_owned(), port: login.port };
        match tokio::time::timeout(CONNECT, Self::reach(host, login)).await {
            Ok(Err(SshError::Protocol(error))) => Err(match error.downcast_ref() {
                Some(russh::Error::IO(_) | russh::Error::ConnectionTimeout) => no_answer(),
                Some(russh::Error::NoCommonAlgo { .. }) => SshError::NothingInCommon(error.to_string()),
                _ => SshError::Protocol(error),
            }),
            Ok(done) => done,
            Err(_) => Err(no_answer()),
        }
    }

    async fn reach(host: &str, login: &Login) -> Result<Self, SshError> {
        let check = HostKey::of(host, login)?;
        let mut config = client::Config {
            // A node that dies in the middle is noticed, and not waited for to the end of the script's own limit.
            keepalive_interval: Some(Duration::from_secs(5)),
            nodelay: true,
            ..client::Config::default()
        };
        config.preferred.key = check.kinds(&config.preferred.key)?.into();
        let mut handle = client::connect(Arc::new(config), (host, login.port), check).await?;
        authenticate(&mut handle, login).await?;
        let mut remote = Self { handle, rights: Rights::Root, password: login.password.clone() };
        remote.rights = remote.rights_of(&login.user).await?;
        Ok(remote)
    }

    async fn rights_of(&self, user: &str) -> Result<Rights, SshError> {
        if user == "root" || self.raw("id -u", &[], CONNECT).await?.text().trim() == "0" {
            return Ok(Rights::Root);
        }
        // In English, whatever the user's language is there: what sudo says is read.
        let without = self.raw("env LC_ALL=C sudo -n true", &[], CONNECT).await?;
        let not_root = |why: WhyNotRoot| SshError::NotRoot { user: user.to_owned(), why };
        match (WhyNotRoot::of(&without), &self.password) {
            (None, _) => Ok(Rights::Sudo),
            (Some(WhyNotRoot::AsksForPassword), Some(password)) => {
                let input = format!("{password}\n");
                let with = self.raw("env LC_ALL=C sudo -k -S -p '' true", input.as_bytes(), CONNECT).await?;
                WhyNotRoot::of(&with).map_or(Ok(Rights::SudoWithPassword), |why| Err(not_root(why)))
            }
            (Some(why), _) => Err(not_root(why)),
        }
    }

    /// Runs a script as root to its end; it must succeed.
    pub(crate) async fn run(&self, script: &str, input: &[u8], limit: Duration) -> Result<Printed, SshError> {
        let printed = self.attempt(script, input, limit).await?;
        if printed.status == 0 {
            return Ok(printed);
        }
        Err(SshError::Script { status: printed.status, stderr: printed.stderr })
    }

    /// Runs a script as root to its end, however that is. `script` is seen by every process of the node.
    pub(crate) async fn attempt(
        &self,
        script: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Printed, SshError> {
        let whole = format!(
            "export LC_ALL=C PATH=\"$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin\"\n{script}"
        );
        let shell = format!("sh -c {}", quoted(&whole));
        match (self.rights, &self.password) {
            (Rights::SudoWithPassword, Some(password)) => {
                // Never from sudo's memory of an earlier password: it reads this line, and the script what follows.
                let input = [password.as_bytes(), b"\n", input].concat();
                self.raw(&format!("sudo -k -S -p '' {shell}"), &input, limit).await
            }
            (Rights::Sudo, _) => self.raw(&format!("sudo -n {shell}"), input, limit).await,
            (Rights::Root | Rights::SudoWithPassword, _) => self.raw(&shell, input, limit).await,
        }
    }

    async fn raw(&self, command: &str, input: &[u8], limit: Duration) -> Result<Printed, SshError> {
        tokio::time::timeout(limit, self.unlimited(command, input))
            .await
            .unwrap_or(Err(SshError::TooLong(limit)))
    }

    async fn unlimited(&self, command: &str, input: &[u8]) -> Result<Printed, SshError> {
        let channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let (mut heard, to) = channel.split();
        let mut say = Box::pin(async {
            // Whoever ends without reading its input is judged by its exit status, and not by this.
            if to.data(input).await.is_ok() {
                let _ = to.eof().await;
            }
        });
        let (mut said_all, mut status) = (false, None);
        let mut printed = Printed { status: 0, stdout: Vec::new(), stderr: String::new() };
        loop {
            let message = tokio::select! {
                biased;
                message = heard.wait() => message,
                () = &mut say, if !said_all => {
                    said_all = true;
                    continue;
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => printed.stdout.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    printed.stderr.push_str(&String::from_utf8_lossy(&data));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
            if printed.stdout.len() + printed.stderr.len() > MOST_OUTPUT {
                return Err(SshError::TooMuch);
            }
        }
        // Without one it was killed by a signal, or the connection is gone.
        printed.status = status.ok_or(SshError::Lost)?;
        Ok(printed)
    }
}
