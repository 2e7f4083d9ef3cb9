//! The steps of switchover, rollback and cleanup.

use super::{about, change, given};
use crate::error::report;
use crate::switchover;
use crate::switchover::cleanup::{self, Wish};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn switchover_step(relation: Option<Oid>, operation: Option<&str>, stage: Option<&str>) -> bool {
    let call = if operation == Some("rollback") {
        c"rollback()"
    } else {
        c"switchover()"
    };
    change(call, false, || {
        let relation = given("relation", relation)?;
        let (operation, stage) = (given("operation", operation)?, given("stage", stage)?);
        about(relation, || switchover::step(relation, operation, stage))
    })
}

#[pg_extern(sql = false)]
fn switchover_dry_run(relation: Option<Oid>, operation: Option<&str>) {
    report(|| {
        let relation = given("relation", relation)?;
        let operation = given("operation", operation)?;
        about(relation, || switchover::dry_run(relation, operation))
    })
}

#[pg_extern(sql = false)]
fn cleanup_step(
    relation: Option<Oid>,
    stage: Option<&str>,
    keep_legacy: Option<bool>,
    keep_unique: Option<bool>,
) -> bool {
    change(c"cleanup()", false, || {
        let keep_legacy = given("keep_legacy", keep_legacy)?;
        let wish = Wish {
            keep_legacy,
            keep_unique,
        };
        let relation = given("relation", relation)?;
        let stage = given("stage", stage)?;
        about(relation, || cleanup::step(relation, stage, wish))
    })
}

#[pg_extern(sql = false)]
fn cleanup_dry_run(relation: Option<Oid>, keep_legacy: Option<bool>, keep_unique: Option<bool>) {
    report(|| {
        let keep_legacy = given("keep_legacy", keep_legacy)?;
        let wish = Wish {
            keep_legacy,
            keep_unique,
        };
        let relation = given("relation", relation)?;
        about(relation, || cleanup::dry_run(relation, wish))
    })
}

#[pg_extern(sql = false)]
fn redefine_materialized_view(view: Option<Oid>, definition: Option<&str>) {
    change(c"redefine_materialized_view()", false, || {
        let view = given("view", view)?;
        let definition = given("definition", definition)?;
        about(view, || switchover::redefine::materialized_view(view, definition))
    })
}
