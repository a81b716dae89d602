//! The state of a VM in one word: of the whole cluster's VM, and of the VM on one node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::records::VmPhase;
use crate::tone::Tone;
use crate::words::words;

words! {
    /// The state of the VM, by its owner's word and the ownership record together.
    #[derive(Serialize, Deserialize, JsonSchema)]
    VmState {
        Running,
        /// Its owner is bringing it up.
        Starting,
        /// Its owner is shutting it down.
        Stopping,
        /// The guest is shutting down.
        ShuttingDown,
        /// The guest stands still.
        Paused,
        Stopped,
        /// The guest powered itself off, and the document says to leave it so.
        PoweredOff,
        /// The VM could be started nowhere.
        Failed,
        /// The guest crashed by itself, as libvirt says.
        Crashed,
        /// The state is not known, or the word is of a later build.
        #[serde(other)]
        Unknown,
    }
}

words! {
    /// The state of the VM in a node's hypervisor.
    #[derive(Serialize, Deserialize, JsonSchema)]
    LocalState {
        Absent,
        /// The VM is defined, and has no process.
        Off,
        Paused,
        Running,
        ShuttingDown,
        Crashed,
        /// The VM has a process that libvirt does not know.
        Unmanaged,
        /// The state is not known, or the word is of a later build.
        #[serde(other)]
        Unknown,
    }
}

impl VmState {
    pub fn tone(self) -> Tone {
        match self {
            Self::Running => Tone::Good,
            Self::Failed | Self::Crashed => Tone::Bad,
            Self::Starting
            | Self::Stopping
            | Self::ShuttingDown
            | Self::Paused
            | Self::Stopped
            | Self::PoweredOff
            | Self::Unknown => Tone::Doubtful,
        }
    }
}

impl From<VmPhase> for VmState {
    fn from(phase: VmPhase) -> Self {
        match phase {
            VmPhase::Starting => Self::Starting,
            VmPhase::Running => Self::Running,
            VmPhase::Stopping => Self::Stopping,
            VmPhase::Stopped => Self::Stopped,
            VmPhase::PoweredOff => Self::PoweredOff,
            VmPhase::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_later_build_is_unknown_and_none_of_ours_changes_on_its_way() {
        for state in VmState::ALL {
            let text = serde_json::to_string(state).unwrap();
            assert_eq!(text, format!("\"{state}\""));
            assert_eq!(serde_json::from_str::<VmState>(&text).unwrap(), *state);
        }
        assert_eq!(serde_json::from_str::<LocalState>("\"Dreaming\"").unwrap(), LocalState::Unknown);
    }
}
