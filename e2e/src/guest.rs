//! The guest, through libvirt alone: a plain domain for the lab's own tests, and the guest's answers, whatever program
//! started it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::host::Host;
use crate::wait;

/// Name of the domain, the product's and the lab's own.
pub const DOMAIN: &str = "mnvm";

/// The part of a file that goes in one call: base64 of it is one word of a command line, and those are at most 128 KiB.
const PART: usize = 90_000;

/// A domain without the product. It boots from the share's image as the product's does.
pub fn domain_xml(memory_gib: u64, vcpus: u64) -> String {
    format!(
        "<domain type='qemu'>
  <name>{DOMAIN}</name><uuid>173de36b-4a5d-458e-a5e3-9a99584551ef</uuid>
  <memory unit='GiB'>{memory_gib}</memory><vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features><on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' io='threads'/>
      <source file='{image}'/><target dev='vda' bus='virtio'/></disk>
    <interface type='bridge'><mac address='02:98:54:4b:a5:c0'/><source bridge='br_mgmt'/><model type='virtio'/></interface>
    <serial type='pty'/><console type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>
",
        image = crate::IMAGE
    )
}

impl Host {
    /// Starts the plain domain.
    pub fn create_domain(&self, memory_gib: u64, vcpus: u64) -> Result<()> {
        let words = ["virsh", "-q", "-c", "qemu:///system", "create", "/dev/stdin"];
        self.exec_with(&words, &domain_xml(memory_gib, vcpus), Duration::from_secs(30))?.success().map(drop)
    }

    /// Gives one command to the guest agent. Returns its `return`.
    pub fn agent(&self, execute: &str, arguments: Value) -> Result<Value> {
        let command = match arguments {
            Value::Null => json!({ "execute": execute }),
            arguments => json!({ "execute": execute, "arguments": arguments }),
        };
        let text = self.virsh(&["qemu-agent-command", "--timeout", "5", DOMAIN, &command.to_string()])?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("decode the agent's answer {text:?}"))?;
        answer.get("return").cloned().ok_or_else(|| anyhow!("the agent answered {text}"))
    }

    /// Reads the text of a small file in the guest.
    pub fn guest_file(&self, path: &str) -> Result<String> {
        let handle = self.agent("guest-file-open", json!({ "path": path, "mode": "r" }))?;
        let read = self.agent("guest-file-read", json!({ "handle": handle, "count": 16_384 }));
        self.agent("guest-file-close", json!({ "handle": handle }))?;
        let read = read?;
        text(&read["buf-b64"])
    }

    /// Puts a program into the guest.
    pub fn bring(&self, program: &Path, to: &str) -> Result<()> {
        let handle = self.agent("guest-file-open", json!({ "path": to, "mode": "w" }))?;
        for part in std::fs::read(program)?.chunks(PART) {
            let buffer = BASE64_STANDARD.encode(part);
            self.agent("guest-file-write", json!({ "handle": handle, "buf-b64": buffer }))?;
        }
        self.agent("guest-file-close", json!({ "handle": handle }))?;
        self.in_guest(&["/bin/chmod", "755", to]).map(drop)
    }

    /// Runs a command in the guest, which must succeed. Returns its output.
    pub fn in_guest(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("no command")?;
        let begun =
            self.agent("guest-exec", json!({ "path": program, "arg": arguments, "capture-output": true }))?;
        let over = wait::until(&format!("the guest has run {program}"), Duration::from_secs(30), || {
            let status = self.agent("guest-exec-status", json!({ "pid": begun["pid"] }))?;
            Ok(Some(status).filter(|status| status["exited"] == true))
        })?;
        let said = |key: &str| if over[key].is_null() { Ok(String::new()) } else { text(&over[key]) };
        ensure!(
            over["exitcode"] == 0,
            "{words:?} in the guest: {over}: {}{}",
            said("out-data")?,
            said("err-data")?
        );
        said("out-data")
    }

    /// The guest's own record: how many seconds it has counted, and which boot of it this is.
    pub fn guest_up(&self) -> Result<GuestUp> {
        let text = self.guest_file("/run/up")?;
        let parts = text.trim().split_once(" boot=");
        let (seconds, boot) = parts.ok_or_else(|| anyhow!("the guest's record is {text:?}"))?;
        Ok(GuestUp {
            seconds: seconds.parse().context("seconds of the guest's record")?,
            boot: boot.to_owned(),
        })
    }
}

/// The guest's own count: it goes on through a migration, and begins again with another boot at a new start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestUp {
    pub seconds: u64,
    pub boot: String,
}

/// Decodes the bytes that the agent tells.
fn text(encoded: &Value) -> Result<String> {
    let encoded = encoded.as_str().ok_or_else(|| anyhow!("the agent told {encoded}"))?;
    let bytes = BASE64_STANDARD.decode(encoded).context("decode what the agent told")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
