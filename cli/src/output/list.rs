//! What commands that list something share: the envelope of the list for machines.

use serde::Serialize;
use zsha_crds::API_VERSION;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [T],
}

impl<'a, T> List<'a, T> {
    pub fn new(kind: &'static str, items: &'a [T]) -> Self {
        Self { api_version: API_VERSION, kind, items }
    }
}
