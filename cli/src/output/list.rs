//! What commands that list something share: the forms they print in, and the envelope of the one for machines.

use clap::ValueEnum;
use serde::Serialize;
use zsha_crds::API_VERSION;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    Json,
}

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
