//! The words that may be typed into `zsha-controller dev`, or posted to it.

use std::str::FromStr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Mutex;

use super::Lab;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    PowerOff(String),
    PowerOn(String),
    Cut(String),
    Mend(String),
    StopController(String),
    StartController(String),
    KillQemu,
    GuestPowerOff,
    Help,
}

pub(super) const HELP: &str = "\
  power-off NODE           the node dies at once      power-on NODE           and boots again
  cut NODE                 its cable is pulled        mend NODE               and put back
  stop-controller NODE     its controller dies        start-controller NODE   and is started again
  kill-qemu                QEMU dies, wherever it is  guest-poweroff          the guest powers itself off
  help                     this list                  quit                    ends it all (or Ctrl-C)";

impl Command {
    pub(super) fn node(&self) -> Option<&str> {
        match self {
            Self::PowerOff(node)
            | Self::PowerOn(node)
            | Self::Cut(node)
            | Self::Mend(node)
            | Self::StopController(node)
            | Self::StartController(node) => Some(node),
            Self::KillQemu | Self::GuestPowerOff | Self::Help => None,
        }
    }
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["power-off", node] => Self::PowerOff((*node).to_owned()),
            ["power-on", node] => Self::PowerOn((*node).to_owned()),
            ["cut", node] => Self::Cut((*node).to_owned()),
            ["mend", node] => Self::Mend((*node).to_owned()),
            ["stop-controller", node] => Self::StopController((*node).to_owned()),
            ["start-controller", node] => Self::StartController((*node).to_owned()),
            ["kill-qemu"] => Self::KillQemu,
            ["guest-poweroff"] => Self::GuestPowerOff,
            ["help"] => Self::Help,
            ["power-off" | "power-on" | "cut" | "mend" | "stop-controller" | "start-controller"] => {
                return Err(format!("'{line}' of which node? For instance '{line} nfs-1'"));
            }
            _ => return Err(format!("'{}' is not understood; these are:\n{HELP}", line.trim())),
        })
    }
}

pub(super) fn welcome(port: u16) {
    let pages: Vec<_> = (1..=3).map(|n| format!("http://127.0.0.1:{}/", port + n)).collect();
    println!(
        "Three nodes (nfs-1, nfs-2, nfs-3) run in this process. Their store is http://127.0.0.1:{port}.\n\
         A page of each node: {}\n\
         Type one of these, and watch what happens:\n{HELP}",
        pages.join("  ")
    );
}

/// Reads commands until `quit`. Where there is no input, it just waits.
pub(super) async fn read(lab: Arc<Mutex<Lab>>) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) if line.trim().is_empty() => {}
            Ok(Some(line)) if matches!(line.trim(), "quit" | "exit") => return,
            Ok(Some(line)) => match line.trim().parse::<Command>() {
                Ok(command) => match lab.lock().await.obey(&command).await {
                    Ok(done) => println!("{done}"),
                    Err(error) => eprintln!("{error:#}"),
                },
                Err(why) => eprintln!("{why}"),
            },
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn every_command_of_the_help_is_understood() {
        for line in
            ["power-off n", "power-on n", "cut n", "mend n", "stop-controller n", "start-controller n"]
        {
            assert_eq!(line.parse::<Command>().unwrap().node(), Some("n"));
        }
        for line in ["kill-qemu", "guest-poweroff", "help"] {
            assert_eq!(line.parse::<Command>().unwrap().node(), None);
        }
    }

    #[test]
    fn a_missing_node_and_a_typo_say_what_to_type() {
        assert_eq!("cut".parse::<Command>().unwrap_err(), "'cut' of which node? For instance 'cut nfs-1'");
        assert!("powr-off nfs-1".parse::<Command>().unwrap_err().contains("power-off NODE"));
    }
}
