//! Refuses, before anything is sent, what no store may be asked, so that all stores refuse the same. It never looks at
//! what is stored.

use super::{MAX_TXN_BYTES, MAX_TXN_OPS, Op, StoreError};

fn invalid(operation: &str, reason: String) -> StoreError {
    StoreError::Invalid { operation: operation.to_owned(), reason }
}

/// Refuses a key that Consul could not keep apart. Its HTTP server answers a path with an empty, `.` or `..` segment by
/// a redirect to another key, so such a key could be written in a transaction and never read. It answers a key that
/// cannot be printed by 400. A key that ends in `/` could not be told from a prefix.
pub(super) fn key(operation: &str, key: &str) -> Result<(), StoreError> {
    if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(invalid(
            operation,
            format!("'{key}' cannot be a key: it has an empty, '.' or '..' part"),
        ));
    }
    if key.chars().any(is_unprintable) {
        return Err(invalid(operation, format!("{key:?} cannot be a key: not all of it can be printed")));
    }
    Ok(())
}

/// True for a character that `Debug` shows as a number: it does so for those that cannot be printed.
fn is_unprintable(c: char) -> bool {
    c.is_control() || c.escape_debug().take(2).eq(['\\', 'u'])
}

/// Refuses a prefix that does not end in `/`. It would match a neighbour's keys, since recurse compares strings, not
/// directories.
pub(super) fn prefix(operation: &str, prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/') {
        Some(path) => key(operation, path),
        None => Err(invalid(operation, format!("'{prefix}' is not a prefix: it must end in '/'"))),
    }
}

/// Checks the argument of [`super::Store::watch`]: a prefix, or one key.
pub(super) fn prefix_or_key(operation: &str, text: &str) -> Result<(), StoreError> {
    if text.ends_with('/') { prefix(operation, text) } else { key(operation, text) }
}

/// Checks the budget of a transaction, and its keys.
pub(super) fn transaction(ops: &[Op]) -> Result<(), StoreError> {
    const OPERATION: &str = "transaction";
    let weight: usize = ops.iter().map(Op::weight).sum();
    if weight > MAX_TXN_OPS {
        let reason = format!("{weight} operations are more than a transaction's {MAX_TXN_OPS}");
        return Err(invalid(OPERATION, reason));
    }
    let bytes: usize = ops.iter().map(Op::len).sum();
    if bytes > MAX_TXN_BYTES {
        return Err(invalid(
            OPERATION,
            format!("{bytes} bytes are more than a transaction's {MAX_TXN_BYTES}"),
        ));
    }
    ops.iter().try_for_each(|op| {
        key(OPERATION, op.key())?;
        match op {
            // 0 means "absent" to Consul's cas, and "nothing" to its deletion: never let it through by accident.
            Op::Cas { index: 0, .. } | Op::DeleteCas { index: 0, .. } | Op::CheckIndex { index: 0, .. } => {
                Err(invalid(OPERATION, format!("'{}': index 0 is the index of no key", op.key())))
            }
            Op::Create { .. }
            | Op::Cas { .. }
            | Op::DeleteCas { .. }
            | Op::CheckIndex { .. }
            | Op::CheckAbsent { .. } => Ok(()),
        }
    })
}
