//! PID 1 of a host of the lab, its switch, and a hand on a host's services:
//!
//!   zsha-lab-init host CONFIG                         run as PID 1 (started by the lab)
//!   zsha-lab-init switch BRIDGE...                    hold the switch's namespace (started by the lab)
//!   zsha-lab-init lifeline | systemd                  on the way to systemd as PID 1 (started by the above)
//!   zsha-lab-init ctl status                          inside a host: its services
//!   zsha-lab-init ctl start|stop|restart SERVICE
//!   zsha-lab-init ctl signal SERVICE NUMBER           9 kills (it is started again), 19 hangs, 18 goes on

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use zsha_e2e::init::control::{self, Request};
use zsha_e2e::init::{boot, lifeline, switch, systemd};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zsha-lab-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["host", config] => boot(Path::new(config)),
        ["switch", bridges @ ..] => switch(&bridges.iter().map(ToString::to_string).collect::<Vec<_>>()),
        ["lifeline"] => lifeline(),
        ["systemd"] => systemd(),
        ["ctl", verb, rest @ ..] => {
            for (name, status) in control::send(Path::new(control::SOCKET), &request(verb, rest)?)? {
                let pid = status.pid.map_or("-".into(), |pid| pid.to_string());
                println!(
                    "{name:12} pid {pid:8} starts {}  last end: {}",
                    status.starts,
                    status.last_end.unwrap_or_default()
                );
            }
            Ok(())
        }
        _ => bail!("usage: zsha-lab-init host CONFIG | switch BRIDGE... | ctl VERB [SERVICE] [SIGNAL]"),
    }
}

fn request(verb: &str, rest: &[&str]) -> Result<Request> {
    Ok(match (verb, rest) {
        ("status", []) => Request::Status,
        ("start", [service]) => Request::Start { service: service.to_string() },
        ("stop", [service]) => Request::Stop { service: service.to_string() },
        ("restart", [service]) => Request::Restart { service: service.to_string() },
        ("signal", [service, signal]) => {
            let signal = signal.parse().with_context(|| format!("a signal's number, not {signal}"))?;
            Request::Signal { service: service.to_string(), signal }
        }
        _ => bail!("ctl status | start SERVICE | stop SERVICE | restart SERVICE | signal SERVICE NUMBER"),
    })
}
