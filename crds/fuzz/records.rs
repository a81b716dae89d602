//! Whatever lies in the store: no record's decoder panics, and what it takes it writes back and takes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zsha_crds::records::{
    EventRecord, HistoryRecord, Intent, LeaseRecord, NodeStatus, StoredSpec, VmRecord, VmStatus,
};

macro_rules! taken_again {
    ($text:expr, $($record:ty)*) => { $(
        if let Ok(record) = serde_json::from_str::<$record>($text) {
            let written = serde_json::to_string(&record).expect("a record serialises");
            let again: $record = serde_json::from_str(&written).expect("what was written is read");
            assert!(again == record);
        }
    )* };
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    taken_again!(text, LeaseRecord VmRecord Intent NodeStatus VmStatus EventRecord StoredSpec HistoryRecord);
    if let Ok(lease) = serde_json::from_str::<LeaseRecord>(text) {
        // Sums of what a stranger wrote must not overflow.
        let _ = lease.timings.is_safe();
    }
});
