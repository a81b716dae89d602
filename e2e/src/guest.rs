//! The guest, through libvirt alone: a plain domain for the lab's own tests, and what the guest answers whoever started it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::host::Host;

/// Name of the domain, the product's and the lab's own.
pub const DOMAIN: &str = "mnvm";

/// A domain without the product: boots from the share's image as the product's does.
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

    /// One command to the guest agent; its `return`.
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

    /// The text of a small file in the guest.
    pub fn guest_file(&self, path: &str) -> Result<String> {
        let handle = self.agent("guest-file-open", json!({ "path": path, "mode": "r" }))?;
        let read = self.agent("guest-file-read", json!({ "handle": handle, "count": 16_384 }));
        self.agent("guest-file-close", json!({ "handle": handle }))?;
        let read = read?;
        let encoded = read["buf-b64"].as_str().ok_or_else(|| anyhow!("the agent read {read}"))?;
        Ok(String::from_utf8_lossy(&decode_base64(encoded)).into_owned())
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

/// What the guest counts: a migration goes on with it, a new start begins again with another boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestUp {
    pub seconds: u64,
    pub boot: String,
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for digit in digits {
        (bits, held) = ((bits << 6) | digit as u32, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_the_agent_writes_it() {
        assert_eq!(super::decode_base64("MTIgYm9vdD1hYmMK"), b"12 boot=abc\n");
        assert_eq!(super::decode_base64("YQ=="), b"a");
    }
}
