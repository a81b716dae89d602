//! Who put a document in force, and when, in one line.

use zsha_crds::records::StoredSpec;

/// `generation 13, applied by alice@nfs-1 at 2026-11-22T10:00:00Z ("more memory")`.
pub fn provenance(spec: &StoredSpec) -> String {
    let why = if spec.message.is_empty() { String::new() } else { format!(" (\"{}\")", spec.message) };
    format!("generation {}, applied by {} at {}{why}", spec.generation, spec.applied_by, spec.applied_at)
}
