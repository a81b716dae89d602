//! What every command takes: how Consul is reached, how long a command may take, and when to colour.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use zsha_crds::ClusterName;
use zsha_runtime::store::consul::TlsName;

#[derive(Debug, Args)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// Where Consul answers, the nearest first; HOST:PORT means http, or https where CONSUL_HTTP_SSL is true
    #[arg(
        long,
        env = "CONSUL_HTTP_ADDR",
        value_name = "URL[,URL]",
        value_delimiter = ',',
        global = true,
        default_value = "127.0.0.1:8500",
        hide_env_values = true
    )]
    pub consul: Vec<String>,
    /// A file that holds the ACL token
    #[arg(long, env = "CONSUL_HTTP_TOKEN_FILE", value_name = "FILE", global = true, hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// The certificate authority of https
    #[arg(
        long,
        env = "CONSUL_CACERT",
        value_name = "FILE",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub ca_cert: Option<PathBuf>,
    /// Our certificate for https, with --client-key
    #[arg(
        long,
        env = "CONSUL_CLIENT_CERT",
        value_name = "FILE",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub client_cert: Option<PathBuf>,
    /// The key of --client-cert
    #[arg(
        long,
        env = "CONSUL_CLIENT_KEY",
        value_name = "FILE",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub client_key: Option<PathBuf>,
    /// The name that Consul's certificate has to bear, where that is another than the host's in its address
    #[arg(
        long,
        env = "CONSUL_TLS_SERVER_NAME",
        value_name = "NAME",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub tls_server_name: Option<TlsName>,
    /// The cluster meant; needed only where the store holds several
    #[arg(long, env = "ZSHA_CLUSTER", value_name = "NAME", global = true, hide_env_values = true)]
    pub cluster: Option<ClusterName>,
    /// Give up after this long, such as 30s or 500ms [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration, global = true)]
    pub timeout: Option<Duration>,
    /// When to colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: When,
    /// The same as --color never
    #[arg(long, global = true)]
    pub no_color: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    Auto,
    Always,
    Never,
}

impl When {
    pub fn of(self, terminal: bool) -> bool {
        match self {
            Self::Auto => terminal,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Global {
    /// The flags, then the environment, as `NO_COLOR` and `CLICOLOR_FORCE` are meant.
    pub fn colour(&self) -> When {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        match self.color {
            _ if self.no_color => When::Never,
            When::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => When::Never,
            When::Auto if set("CLICOLOR_FORCE") || set("FORCE_COLOR") => When::Always,
            When::Auto if std::env::var_os("TERM").is_some_and(|term| term == "dumb") => When::Never,
            when => when,
        }
    }
}

/// `30s`, `500ms`, `2m`, or seconds alone.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{unit}' is no unit; it must be ms, s, m or h")),
    };
    match number.parse::<f64>() {
        Ok(number) if (0.0..=86_400.0).contains(&(number * scale)) => {
            Ok(Duration::from_secs_f64(number * scale))
        }
        Ok(_) => Err("it must be at most 24h".to_owned()),
        Err(_) => Err("it must be a number and a unit, such as 30s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_a_bound() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO), "`stop` takes it: at once");
        for wrong in ["", "s", "3 fortnights", "-1s", "25h", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
