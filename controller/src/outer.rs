//! Tells whether this host is itself a virtual machine. Then something outside can stop it, and its own clock may not
//! count that. The promise rests on that clock, so a node's status says what kind of host it is.
//!
//! A machine that hides what it is passes for a real one. A container is none: its clock is its host's.

use std::fs;
use std::io;
use std::path::Path;

/// The kind of host that this one was seen to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outer {
    Real,
    /// Run by a hypervisor; by which, as far as it says.
    Virtual {
        by: String,
    },
    Unknown {
        reason: String,
    },
}

/// The beginnings of the names of makers and products by which firmware shows that it is a hypervisor's.
const MAKERS: [&str; 14] = [
    "QEMU",
    "KVM",
    "OpenStack",
    "VMware",
    "VMW",
    "innotek GmbH",
    "VirtualBox",
    "Xen",
    "Bochs",
    "Parallels",
    "BHYVE",
    "Virtual Machine",
    "Google Compute Engine",
    "Apple Virtualization",
];

impl Outer {
    /// Looks at this very host.
    pub fn look() -> Self {
        let dmi = Path::new("/sys/class/dmi/id");
        let firmware = ["sys_vendor", "product_name"].map(|name| word(&dmi.join(name)).unwrap_or_default());
        let xen = word(Path::new("/sys/hypervisor/type"));
        let rules_xen =
            word(Path::new("/proc/xen/capabilities")).is_some_and(|can| can.contains("control_d"));
        judge(&fs::read_to_string("/proc/cpuinfo"), &firmware, xen.as_deref(), rules_xen)
    }

    /// True if the host may be stopped so that its clock does not count it; also where that cannot be told.
    pub fn may_be_paused(&self) -> bool {
        *self != Self::Real
    }

    /// The sentence for people, where there is something to say.
    pub fn said(&self) -> Option<String> {
        match self {
            Self::Real => None,
            Self::Virtual { by } => Some(format!("a virtual machine ({by})")),
            Self::Unknown { reason } => Some(format!("perhaps a virtual machine ({reason})")),
        }
    }
}

/// One line, with something in it.
fn word(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|word| !word.is_empty())
}

/// `firmware`: maker and product. `rules_xen`: it is the domain that runs all others, which nobody pauses.
fn judge(cpuinfo: &io::Result<String>, firmware: &[String; 2], xen: Option<&str>, rules_xen: bool) -> Outer {
    if rules_xen {
        return Outer::Real;
    }
    let named = firmware.iter().find(|name| MAKERS.iter().any(|maker| name.starts_with(maker)));
    if let Some(by) = named.map(String::as_str).or(xen) {
        return Outer::Virtual { by: by.to_owned() };
    }
    match cpuinfo {
        Ok(text) if has_flag(text, "hypervisor") => {
            let by = firmware.iter().find(|name| !name.is_empty());
            Outer::Virtual { by: by.map_or("its processor says so", String::as_str).to_owned() }
        }
        // Nothing is said of what a processor has no line for.
        Ok(text) if !text.lines().any(|line| line.starts_with("flags")) => {
            Outer::Unknown { reason: "/proc/cpuinfo has no flags".to_owned() }
        }
        Ok(_) => Outer::Real,
        Err(error) => Outer::Unknown { reason: format!("/proc/cpuinfo cannot be read: {error}") },
    }
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    let lines = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    lines.flat_map(str::split_whitespace).any(|word| word == flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "processor\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n";
    const GUEST: &str = "processor\t: 0\nflags\t\t: fpu tsc hypervisor constant_tsc\n";

    fn seen(cpuinfo: &str, maker: &str, product: &str) -> Outer {
        judge(&Ok(cpuinfo.to_owned()), &[maker.to_owned(), product.to_owned()], None, false)
    }

    fn by(by: &str) -> Outer {
        Outer::Virtual { by: by.to_owned() }
    }

    #[test]
    fn a_virtual_machine_is_known_by_its_processor_or_its_firmware() {
        assert_eq!(seen(PLAIN, "Dell Inc.", "PowerEdge R650"), Outer::Real);
        assert_eq!(seen(GUEST, "", ""), by("its processor says so"));
        assert_eq!(seen(GUEST, "Amazon EC2", "m5.large"), by("Amazon EC2"));
        assert_eq!(seen(PLAIN, "QEMU", "Standard PC (Q35 + ICH9, 2009)"), by("QEMU"));
        assert_eq!(seen(PLAIN, "Microsoft Corporation", "Virtual Machine"), by("Virtual Machine"));
        assert_eq!(seen(PLAIN, "Microsoft Corporation", "Surface Pro"), Outer::Real);
        assert_eq!(seen(PLAIN, "Amazon EC2", "m5.metal"), Outer::Real, "a whole machine");
    }

    #[test]
    fn the_domain_that_runs_all_others_is_a_real_machine() {
        let none = [String::new(), String::new()];
        assert_eq!(judge(&Ok(GUEST.to_owned()), &none, Some("xen"), true), Outer::Real);
        assert_eq!(judge(&Ok(PLAIN.to_owned()), &none, Some("xen"), false), by("xen"));
    }

    #[test]
    fn what_cannot_be_told_may_be_paused() {
        let denied = Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let outer = judge(&denied, &[String::new(), String::new()], None, false);
        assert!(outer.may_be_paused() && outer.said().is_some(), "{outer:?}");
        assert!(!Outer::Real.may_be_paused() && Outer::Real.said().is_none());
    }
}
