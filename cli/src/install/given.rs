//! What this machine gives to an install: the programs that stand beside this one, and the settings in a file.

use std::path::Path;

use serde_yaml::Mapping;

use super::ceph;
use super::layout::{self, Completions, Part, Programs, Wanted};
use crate::exit::Exit;
use crate::failure::Failure;

/// The programs beside this very one, and Consul's if it is there or `consul` names it.
pub(crate) fn programs(consul: Option<&Path>, completions: Completions) -> Result<Programs, Failure> {
    let us = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::General, "NoProgram", format!("where this program is: {error}"))
    })?;
    let beside = |name: &str| us.with_file_name(name);
    let consul = match consul {
        Some(file) => Some(file.to_owned()),
        None => Some(beside("consul")).filter(|file| file.is_file()),
    };
    let zsha = program(&us, layout::ZSHA, Part::Zsha)?;
    let other = |file: &Path, path, part| {
        let other = program(file, path, part)?;
        for_the_same_machine(&zsha.content, &other.content, file).map(|()| other)
    };
    let consul = consul.map(|file| other(&file, layout::CONSUL, Part::Consul)).transpose()?;
    let controller = other(&beside("zsha-controller"), layout::CONTROLLER, Part::Zsha)?;
    Ok(Programs { zsha, controller, consul, completions })
}

/// Every node is seen to be of the kind that this very program is for. One for another kind would be taken for a
/// script by the shell that tries it there.
fn for_the_same_machine(ours: &[u8], other: &[u8], file: &Path) -> Result<(), Failure> {
    // Of an ELF file: how wide its words are and in what order their bytes, and which processor it is for.
    let machine = |elf: &[u8]| Some((elf.get(4..6)?.to_vec(), elf.get(18..20)?.to_vec()));
    if machine(other).is_some() && machine(other) == machine(ours) {
        return Ok(());
    }
    Err(Failure::usage(format!("{} is for another kind of processor than this zsha", file.display()))
        .hint("take one for the nodes' kind: `file` says which kind a program is for"))
}

fn program(file: &Path, path: &'static str, part: Part) -> Result<Wanted, Failure> {
    let content = std::fs::read(file).map_err(|error| {
        Failure::new(Exit::Usage, "NoProgram", format!("{} cannot be read", file.display()))
            .cause(error.to_string())
            .hint("the programs to send stand beside this `zsha`: zsha-controller, and consul unless it is named")
    })?;
    if !content.starts_with(b"\x7fELF") {
        return Err(Failure::usage(format!("{} is no program", file.display())));
    }
    Ok(Wanted::new(path, "755", part, content))
}

/// Reads the file that `--settings` names.
pub(crate) fn settings(file: Option<&Path>) -> Result<Mapping, Failure> {
    let Some(file) = file else { return Ok(Mapping::new()) };
    let name = file.display();
    let unusable = |why: String| Failure::usage(format!("{name} cannot be used")).cause(why);
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let settings: Mapping = serde_yaml::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    if settings.contains_key(ceph::USER) != settings.contains_key(ceph::SECRET) {
        return Err(unusable(format!("`{}` and `{}` go together", ceph::USER, ceph::SECRET)));
    }
    let own = layout::OWN_SETTINGS.iter().find(|key| settings.contains_key(**key));
    match own {
        Some(key) => Err(unusable(format!("`{key}` is written by install itself, for each node"))),
        None => Ok(settings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_another_kind_of_processor_is_not_sent_at_all() {
        let mut ours = b"\x7fELF\x02\x01\x01".to_vec();
        ours.resize(64, 0);
        ours[18] = 62;
        let file = Path::new("zsha-controller");
        assert!(for_the_same_machine(&ours, &ours, file).is_ok());
        let mut other = ours.clone();
        other[7] = 3;
        assert!(for_the_same_machine(&ours, &other, file).is_ok(), "which system it is for says nothing");
        other[18] = 183;
        let refused = for_the_same_machine(&ours, &other, file).unwrap_err();
        assert_eq!(refused.message, "zsha-controller is for another kind of processor than this zsha");
        assert!(for_the_same_machine(&ours[..8], &ours[..8], file).is_err(), "that is no whole program");
    }
}
