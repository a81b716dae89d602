//! Finds where the VM's own process has its image open: a path below /proc that leads to the very file, over no
//! directory.
//!
//! It reads names that the kernel has in memory, and touches no file system but /proc.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::keeper::copies::Copies;
use crate::one_thread::OneThread;

/// The time for an answer. The kernel answers from memory, unless a process of the VM hangs in the middle of a change
/// of its own.
const WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// No process of the VM is here.
    NoProcess,
    By(PathBuf),
    /// A process is here, and no file that it has open has this name. It does not have the image open, or has it by
    /// another name, as where the document's path is a link.
    NotFound,
}

/// Finds the image. An error is a sentence on why that is not known.
pub(super) async fn by(copies: Arc<dyn Copies>, image: &Path, thread: &OneThread) -> Result<Opened, String> {
    let image = image.to_owned();
    let looking = move || -> io::Result<Opened> {
        let found = copies.alive()?;
        if found.is_empty() {
            return Ok(Opened::NoProcess);
        }
        for copy in found {
            if let Some(at) = among(&PathBuf::from(format!("/proc/{}/fd", copy.process)), &image)? {
                return Ok(Opened::By(at));
            }
        }
        Ok(Opened::NotFound)
    };
    thread.run(WITHIN, looking).await?.map_err(|error| error.to_string())
}

/// Finds the image by the file's name alone. While its path hangs, the links on the way cannot be asked, and a VM has
/// one image.
fn among(open: &Path, image: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(open)? {
        let entry = entry?.path();
        match fs::read_link(&entry) {
            Ok(leads) if leads.file_name() == image.file_name() => return Ok(Some(entry)),
            Ok(_) => {}
            // It was closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_where_it_is_open_and_not_once_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("mnvm.img");
        fs::write(&image, "an image").unwrap();
        let open = Path::new("/proc/self/fd");
        assert_eq!(among(open, &image).unwrap(), None);
        let file = fs::File::open(&image).unwrap();
        let found = among(open, Path::new("/by/another/way/mnvm.img")).unwrap().unwrap();
        assert_eq!(fs::read_to_string(found).unwrap(), "an image");
        drop(file);
        assert_eq!(among(open, &image).unwrap(), None);
    }
}
