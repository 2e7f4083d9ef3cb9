//! Tests inside a server: what one session in one transaction can show. The rest is in `tests/`.

#[cfg(feature = "pg_test")]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    /// The SQLSTATE with which a statement fails, as the server packs it.
    fn sqlstate(statement: &str) -> Option<PgSqlErrorCode> {
        PgTryBuilder::new(|| {
            Spi::run(statement).ok();
            None
        })
        .catch_others(|error| match error {
            pg_sys::panic::CaughtError::PostgresError(report)
            | pg_sys::panic::CaughtError::ErrorReport(report)
            | pg_sys::panic::CaughtError::RustPanic { ereport: report, .. } => Some(report.sql_error_code()),
        })
        .execute()
    }

    fn text(query: &str) -> Option<String> {
        Spi::get_one(query).ok().flatten()
    }

    #[pg_test]
    fn a_table_without_a_pair_is_routed_to_itself() {
        assert_eq!(
            text("SELECT partition_router.route('pg_class')::text").as_deref(),
            Some("pg_class")
        );
        assert_eq!(text("SELECT partition_router.route(NULL)::text"), None);
        assert_eq!(
            text("SELECT reason FROM partition_router.explain_route('pg_class')").as_deref(),
            Some("not in a pair")
        );
    }

    #[pg_test]
    fn settings_have_their_defaults() {
        for (name, default) in [
            ("use_partitioned_tables", "off"),
            ("enable_partition_routing", "on"),
            ("tenant", ""),
            ("log_partition_routing", "off"),
            ("enable_partition_maintenance", "on"),
            ("lock_timeout", "100ms"),
        ] {
            let shown = text(&format!("SHOW partition_router.{name}"));
            assert_eq!(shown.as_deref(), Some(default), "{name}");
        }
    }

    // One error a test: nothing undoes what the failed statement had set.

    #[pg_test]
    fn a_null_argument_has_the_sqlstate_of_null() {
        assert_eq!(
            sqlstate("SELECT partition_router.create_twin(NULL, 'at')"),
            Some(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED)
        );
    }

    #[pg_test]
    fn a_relation_that_is_gone_has_the_sqlstate_of_an_unknown_table() {
        assert_eq!(
            sqlstate("SELECT partition_router.create_twin(4000000000::oid, 'at')"),
            Some(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE)
        );
    }

    #[pg_test]
    fn a_view_has_the_sqlstate_of_a_wrong_object_type() {
        Spi::run("CREATE VIEW v AS SELECT 1 AS id").expect("a view");
        assert_eq!(
            sqlstate("SELECT partition_router.create_twin('v', 'id')"),
            Some(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE)
        );
    }

    #[pg_test]
    fn a_twin_is_made_in_the_transaction_that_asks_for_it() {
        Spi::run("CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL)").expect("a table");
        Spi::run("SELECT partition_router.create_twin('t', 'at', 'hash', partitions => 2)").expect("a twin");
        assert_eq!(
            text("SELECT phase FROM partition_router.status WHERE legacy = 't'::regclass").as_deref(),
            Some("prepared")
        );
        Spi::run("SELECT partition_router.start_sync('t')").expect("sync of an empty legacy");
        Spi::run("INSERT INTO t VALUES (1, '2026-01-01')").expect("a row");
        assert_eq!(Spi::get_one("SELECT count(*) FROM t_partitioned"), Ok(Some(1i64)));
    }
}
