//! The steps of `create_index`.

use super::{change, given};
use crate::error::report;
use crate::index_build;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn create_index_step(relation: Option<Oid>, definition: Option<&str>, path: &str) -> bool {
    change(c"create_index()", false, || {
        index_build::step(
            given("relation", relation)?,
            given("definition", definition)?,
            path,
        )
    })
}

#[pg_extern(sql = false)]
fn create_index_dry_run(relation: Option<Oid>, definition: Option<&str>, path: &str) {
    report(|| {
        index_build::dry_run(
            given("relation", relation)?,
            given("definition", definition)?,
            path,
        )
    });
}
