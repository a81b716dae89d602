//! The content of an image file, by its first bytes: whether QEMU can start the VM from it, as the document says it is.
//!
//! Never here: opening the file. What is read is handed in.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The number of bytes at the head of a file that are read. A qcow2 header with its extensions and the name of its backing
/// file lies in the first cluster, which has 512 bytes at least; longer names are cut.
pub(super) const HEAD: usize = 2048;

/// The content of an image file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "content", rename_all = "camelCase")]
pub enum Content {
    Qcow2(Qcow2),
    /// It has no bytes at all.
    Empty,
    /// Something else than a qcow2 image: a raw disk, or another program's format.
    Other {
        /// The format in words, where it is known by its first bytes.
        looks_like: String,
    },
}

/// The header of a qcow2 image, as far as it decides about a start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Qcow2 {
    /// The file that it rests on, as the header names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<String>,
    /// QEMU has noted that its tables are damaged: it opens the image for reading only.
    pub corrupt: bool,
    pub encrypted: bool,
    /// The file ends before its own tables do.
    pub truncated: bool,
    /// The version of the format, where it is none that QEMU reads (2 and 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_version: Option<u32>,
}

impl Default for Content {
    /// A plain qcow2 image.
    fn default() -> Self {
        Self::Qcow2(Qcow2::default())
    }
}

const MAGIC: &[u8] = b"QFI\xfb";
/// A bit of the incompatible features.
const CORRUPT: u64 = 1 << 1;

impl Content {
    /// Reads the head of a file of so many bytes.
    pub fn of(head: &[u8], bytes: u64) -> Self {
        if bytes == 0 {
            return Self::Empty;
        }
        if !head.starts_with(MAGIC) {
            return Self::Other { looks_like: looks_like(head).to_owned() };
        }
        Self::Qcow2(Qcow2::of(head, bytes))
    }

    /// The file that an image at this place rests on. None: there is none, or QEMU reaches it otherwise than by a path.
    pub(super) fn rests_on(&self, at: &Path) -> Option<PathBuf> {
        let Self::Qcow2(Qcow2 { backing: Some(name), .. }) = self else { return None };
        let name = name.strip_prefix("file:").unwrap_or(name);
        let names_a_protocol = name.split_once(':').is_some_and(|(before, _)| !before.contains('/'));
        (!names_a_protocol).then(|| at.parent().unwrap_or(at).join(name))
    }
}

/// The big-endian number at this place; None: the head is shorter.
fn number<const BYTES: usize>(head: &[u8], at: usize) -> Option<u64> {
    let bytes = head.get(at..at + BYTES)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

impl Qcow2 {
    fn of(head: &[u8], bytes: u64) -> Self {
        // The places are those of QEMU's docs/interop/qcow2.
        let version = number::<4>(head, 4).unwrap_or_default();
        let table = number::<8>(head, 40).zip(number::<4>(head, 36));
        let ends = table.map(|(offset, entries)| offset.saturating_add(entries.saturating_mul(8)));
        let features = if version >= 3 { number::<8>(head, 72).unwrap_or_default() } else { 0 };
        Self {
            backing: backing(head),
            corrupt: features & CORRUPT != 0,
            encrypted: number::<4>(head, 32).is_some_and(|method| method != 0),
            truncated: ends.is_none_or(|ends| ends > bytes),
            unknown_version: (![2, 3].contains(&version)).then(|| u32::try_from(version).unwrap_or(u32::MAX)),
        }
    }
}

fn backing(head: &[u8]) -> Option<String> {
    let offset = usize::try_from(number::<8>(head, 8)?).ok().filter(|offset| *offset != 0)?;
    let length = usize::try_from(number::<4>(head, 16)?).ok()?;
    // A name that ends beyond what was read is not known: half of it would be another file.
    let name = head.get(offset..offset.checked_add(length)?)?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The format that begins so, in words.
fn looks_like(head: &[u8]) -> &'static str {
    let has = |at: usize, word: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(word));
    match () {
        () if has(0, b"QED\0") => "a QED image",
        () if has(0, b"KDMV") || has(0, b"# Disk DescriptorFile") => "a VMDK image",
        () if has(0, b"conectix") || has(0, b"vhdxfile") => "a VHD image",
        () if has(0, b"<<< ") => "a VDI image",
        () if has(0, b"LUKS\xba\xbe") => "an encrypted (LUKS) disk",
        () if has(0, b"\x1f\x8b") || has(0, b"\xfd7zXZ") || has(0, b"\x28\xb5\x2f\xfd") || has(0, b"BZh") => {
            "a compressed file"
        }
        () if has(510, b"\x55\xaa") => "a raw disk with a boot sector",
        () if head.iter().all(|byte| *byte == 0) => "a raw disk, or a file of zeros",
        () => "no image that is known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a qcow2 image of version 3 with one cluster of tables, changed at these places.
    fn header(changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[36..40].copy_from_slice(&1_u32.to_be_bytes());
        head[40..48].copy_from_slice(&0x3_0000_u64.to_be_bytes());
        for (at, bytes) in changes {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    const LENGTH: u64 = 0x3_0008;

    #[test]
    fn a_plain_image_has_nothing_against_it() {
        assert_eq!(Content::of(&header(&[]), LENGTH), Content::Qcow2(Qcow2::default()));
    }

    #[test]
    fn what_keeps_qemu_from_opening_an_image_is_read_from_its_header() {
        let of = |changes: &[(usize, &[u8])]| match Content::of(&header(changes), LENGTH) {
            Content::Qcow2(qcow2) => qcow2,
            other => panic!("{other:?}"),
        };
        assert!(of(&[(72, &2_u64.to_be_bytes())]).corrupt);
        assert!(!of(&[(72, &1_u64.to_be_bytes())]).corrupt, "dirty is repaired by QEMU");
        assert!(of(&[(32, &2_u32.to_be_bytes())]).encrypted);
        assert_eq!(of(&[(4, &9_u32.to_be_bytes())]).unknown_version, Some(9));
        assert!(
            !of(&[(4, &2_u32.to_be_bytes()), (72, &2_u64.to_be_bytes())]).corrupt,
            "version 2 has no such field"
        );
        let name = b"/share/base.img";
        let backed = of(&[(8, &104_u64.to_be_bytes()), (16, &15_u32.to_be_bytes()), (104, name)]);
        assert_eq!(backed.backing.as_deref(), Some("/share/base.img"));
    }

    #[test]
    fn a_file_that_ends_before_its_tables_is_truncated() {
        let truncated = |head: &[u8], bytes| {
            matches!(Content::of(head, bytes), Content::Qcow2(Qcow2 { truncated: true, .. }))
        };
        assert!(truncated(&header(&[]), LENGTH - 1));
        assert!(!truncated(&header(&[]), LENGTH));
        assert!(truncated(b"QFI\xfb", 4), "not even a header");
        let absurd = header(&[(40, &u64::MAX.to_be_bytes())]);
        assert!(truncated(&absurd, LENGTH), "and no number overflows");
    }

    #[test]
    fn a_name_of_which_not_all_was_read_is_none() {
        let far = header(&[(8, &u64::MAX.to_be_bytes()), (16, &u32::MAX.to_be_bytes())]);
        let long = header(&[(8, &500_u64.to_be_bytes()), (16, &u32::MAX.to_be_bytes())]);
        let backing = |head: &[u8]| match Content::of(head, LENGTH) {
            Content::Qcow2(qcow2) => qcow2.backing,
            other => panic!("{other:?}"),
        };
        assert_eq!(backing(&far), None);
        assert_eq!(backing(&long), None, "half a name would be another file");
        let whole =
            header(&[(8, &500_u64.to_be_bytes()), (16, &12_u32.to_be_bytes()), (500, b"/a/image.img")]);
        assert_eq!(backing(&whole).as_deref(), Some("/a/image.img"));
    }

    #[test]
    fn what_an_image_rests_on_is_found_beside_it_or_where_its_path_leads() {
        let rests_on = |name: &str| {
            let content = Content::Qcow2(Qcow2 { backing: Some(name.to_owned()), ..Qcow2::default() });
            content.rests_on(Path::new("/share/mnvm.img"))
        };
        assert_eq!(rests_on("base.img"), Some("/share/base.img".into()));
        assert_eq!(rests_on("/other/a:b.img"), Some("/other/a:b.img".into()));
        assert_eq!(rests_on("file:/other/base.img"), Some("/other/base.img".into()));
        assert_eq!((rests_on("nbd:host:10809"), rests_on("json:{}")), (None, None));
        assert_eq!(Content::default().rests_on(Path::new("/share/mnvm.img")), None);
    }

    #[test]
    fn other_formats_are_named() {
        let looks = |head: &[u8]| match Content::of(head, 1 << 20) {
            Content::Other { looks_like } => looks_like,
            other => panic!("{other:?}"),
        };
        let mut raw = vec![0; 512];
        assert!(looks(&raw).contains("zeros"));
        raw[510..].copy_from_slice(b"\x55\xaa");
        assert!(looks(&raw).contains("boot sector"));
        assert!(looks(b"KDMV").contains("VMDK") && looks(b"\x1f\x8b\x08").contains("compressed"));
        assert!(looks(b"hello").contains("no image"));
        assert_eq!(Content::of(&[], 0), Content::Empty);
    }
}
