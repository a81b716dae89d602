//! Gives commands to the agent in the guest, in its own protocol. The calls block, as all of [`super::domain`] do.

use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use virt::domain::Domain;
use zsha_runtime::Clock;

use super::refusal::{Refusal, one_line, plain};
use crate::hypervisor::GuestRan;

/// The time for one command, in seconds; a program that the command starts may take longer.
const COMMAND_SECS: i32 = 5;
/// The pause between two looks whether a script has ended.
const TICK: Duration = Duration::from_millis(200);
/// The most that is told of the output, in characters.
const SHOWN: usize = 300;

#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    told: T,
}

#[derive(Deserialize)]
struct Begun {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    exited: bool,
    #[serde(rename = "exitcode")]
    exit_code: Option<i64>,
    out_data: Option<String>,
    err_data: Option<String>,
}

fn ask<T: DeserializeOwned>(domain: &Domain, command: &str, arguments: Value) -> Result<T, Refusal> {
    let command = json!({ "execute": command, "arguments": arguments }).to_string();
    let answer = domain.qemu_agent_command(&command, COMMAND_SECS, 0)?;
    let answer: Answer<T> = serde_json::from_str(&answer)
        .map_err(|error| plain(format!("the agent's answer cannot be read ({error}): {}", short(&answer))))?;
    Ok(answer.told)
}

/// Runs the script, and waits until it has ended.
pub(super) fn run(domain: &Domain, script: &str, limit: Duration) -> Result<GuestRan, Refusal> {
    let script = BASE64_STANDARD.encode(script);
    let arguments = json!({ "path": "/bin/sh", "arg": ["-s"], "input-data": script, "capture-output": true });
    let begun: Begun = match ask(domain, "guest-exec", arguments) {
        Err(Refusal::Libvirt(error)) if is_the_agents(error.message()) => {
            return Ok(GuestRan::NotAllowed(short(error.message())));
        }
        begun => begun?,
    };
    let until = Clock::Boottime.now() + limit;
    while Clock::Boottime.now() < until {
        let status: Status = ask(domain, "guest-exec-status", json!({ "pid": begun.pid }))?;
        if status.exited {
            return Ok(told(&status));
        }
        thread::park_timeout(TICK);
    }
    Ok(GuestRan::Failed(format!("the script has not ended within {} s", limit.as_secs())))
}

/// True if the error is the agent's own: then libvirt names the command, whatever the language.
fn is_the_agents(error: &str) -> bool {
    error.contains("guest-exec")
}

/// Cuts the output short, so that a guest cannot fill a status or a log.
fn short(said: &str) -> String {
    one_line(said).chars().take(SHOWN).collect()
}

fn told(status: &Status) -> GuestRan {
    let text = |data: &Option<String>| {
        let bytes = data.as_deref().map(|data| BASE64_STANDARD.decode(data).unwrap_or_default());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    match status.exit_code {
        Some(0) => GuestRan::Printed(short(&text(&status.out_data))),
        code => {
            let code = code.map_or("a signal".to_owned(), |code| format!("status {code}"));
            let said = short(&text(&status.err_data));
            GuestRan::Failed(format!("the script ended with {code}: {said}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(answer: &str) -> GuestRan {
        let answer: Answer<Status> = serde_json::from_str(answer).unwrap();
        assert!(answer.told.exited);
        told(&answer.told)
    }

    #[test]
    fn what_a_script_printed_is_told_and_why_one_failed() {
        let good = r#"{"return":{"exitcode":0,"exited":true,"out-data":"Y2xvdWQtaW5pdAo="}}"#;
        assert_eq!(ended(good), GuestRan::Printed("cloud-init".to_owned()));
        let silent = r#"{"return":{"exitcode":0,"exited":true}}"#;
        assert_eq!(ended(silent), GuestRan::Printed(String::new()));
        let bad = r#"{"return":{"exitcode":1,"exited":true,"err-data":"bm8gZGV2aWNlCg=="}}"#;
        assert_eq!(ended(bad), GuestRan::Failed("the script ended with status 1: no device".to_owned()));
        let killed = r#"{"return":{"exited":true,"signal":9}}"#;
        assert_eq!(ended(killed), GuestRan::Failed("the script ended with a signal: ".to_owned()));
    }
}
