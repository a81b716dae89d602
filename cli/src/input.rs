//! Reads the document that a command is given, decodes it for the cluster it is meant for, and prints the warnings
//! about it.

use std::io::{Read, Write};

use zsha_crds::ClusterName;
use zsha_crds::decode::{Decoded, Format, Options, decode_bytes};
use zsha_crds::diagnostic::{Diagnostics, Look};
use zsha_runtime::client::clusters;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Reach, Session};

/// The document of FILE, for the cluster it is meant for. An old config.json names none: it is for the cluster
/// named on the command line, or for the only one there is, where there is a store to look into.
pub(crate) async fn document(
    file: &str,
    named: Option<&ClusterName>,
    reach: Option<&Reach>,
    session: &mut Session<'_>,
) -> Result<Decoded, Failure> {
    let (bytes, name) = read(file, session.stdin)?;
    let decoded = |cluster_name: Option<ClusterName>| {
        decode_bytes(&bytes, &name, &Options { cluster_name })
            .map_err(|faults| Failure::invalid(&name, faults))
    };
    let of_named = decoded(named.cloned())?;
    match (of_named.format, named, reach) {
        (Format::ConfigJson, None, Some(reach)) => {
            match clusters::all(reach.store.as_ref()).await?.as_slice() {
                [] => Ok(of_named),
                [only] => decoded(Some(only.clone())),
                [..] => Err(Failure::usage(format!(
                    "{name} does not say which cluster it is for, and there are several"
                ))
                .hint("name it: --cluster NAME")),
            }
        }
        (Format::Yaml | Format::Json, Some(named), _) if of_named.cluster.name() != named => {
            let message =
                format!("{name} is for cluster '{}', and --cluster says '{named}'", of_named.cluster.name());
            Err(Failure::usage(message)
                .hint("leave --cluster (and ZSHA_CLUSTER) out, or change `metadata.name`"))
        }
        _ => Ok(of_named),
    }
}

/// Reads a document from a file, or from stdin for `-`; with the name to use for it in messages.
pub(crate) fn read(file: &str, stdin: &mut dyn Read) -> Result<(Vec<u8>, String), Failure> {
    // One byte over what is taken says that it is too much, without reading the rest.
    let limit = zsha_crds::decode::LARGEST as u64 + 1;
    let mut bytes = Vec::new();
    let (read, name) = if file == "-" {
        (stdin.take(limit).read_to_end(&mut bytes), "<stdin>".to_owned())
    } else {
        let read = std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        (read, file.to_owned())
    };
    match read {
        Ok(_) => Ok((bytes, name)),
        Err(error) => Err(Failure::new(Exit::Usage, "Unreadable", format!("{name} cannot be read"))
            .cause(error.to_string())
            .hint("give a file that exists, or `-` for standard input")),
    }
}

/// Prints the warnings: things that a person should look at, and that stop nothing.
pub(crate) fn warn(session: &mut Session<'_>, warnings: &Diagnostics) -> Result<(), Failure> {
    let look = if session.output.err_look.colour { Look::Coloured } else { Look::Plain };
    Ok(session.output.err.write_all(warnings.render(look).as_bytes())?)
}
