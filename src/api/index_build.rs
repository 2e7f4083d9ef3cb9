//! The steps of `create_index` and `unpartition`, and `advise`.

use super::{about, change, given};
use crate::error::report;
use crate::{advise, index_build, unpartition};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn create_index_step(relation: Option<Oid>, definition: Option<&str>, path: Option<&str>) -> bool {
    change(c"create_index()", false, || {
        let relation = given("relation", relation)?;
        let definition = given("definition", definition)?;
        let path = given("path", path)?;
        about(relation, || index_build::step(relation, definition, path))
    })
}

#[pg_extern(sql = false)]
fn create_index_dry_run(relation: Option<Oid>, definition: Option<&str>, path: Option<&str>) {
    // What the server makes of the definition is read from an index that is made and undone.
    change(c"create_index()", false, || {
        let relation = given("relation", relation)?;
        let definition = given("definition", definition)?;
        let path = given("path", path)?;
        about(relation, || index_build::dry_run(relation, definition, path))
    });
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, clippy::needless_pass_by_value)]
fn advise(
    relation: Oid,
) -> TableIterator<
    'static,
    (
        name!(severity, String),
        name!(topic, String),
        name!(message, String),
        name!(hint, String),
    ),
> {
    let found = report(|| about(relation, || advise::advise(relation))).into_iter();
    TableIterator::new(found.map(|a| (a.severity.to_string(), a.topic.to_owned(), a.message, a.hint)))
}

#[pg_extern(sql = false)]
fn unpartition_step(relation: Option<Oid>, step: Option<&str>) -> bool {
    change(c"unpartition()", step == Some("DRY RUN"), || {
        let (relation, step) = (given("relation", relation)?, given("step", step)?);
        about(relation, || match step {
            "DRY RUN" => unpartition::dry_run(relation).map(|()| false),
            "CANCEL" => unpartition::cancel(relation),
            "PREPARE" => unpartition::prepare(relation),
            "COPY" => unpartition::copy(relation),
            "PROVE" => unpartition::prove(relation).map(|()| false),
            stage => unpartition::swap(relation, stage),
        })
    })
}
