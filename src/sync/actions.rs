//! The legacy and its twin have the same foreign keys. Of two equal ones only the legacy's acts when a row that they point
//! at changes: what its action does to the legacy reaches the twin as any change does. If both acted, each row would be
//! changed twice, and triggers of the user would fire twice for it. If both refused, the twin would be asked before
//! the sync has brought it up to date. Checks of rows that are written stay in force on both sides.

use crate::error::Result;
use crate::{session, spi};
use pgrx::pg_sys::Oid;

/// Disables the actions of the foreign keys of `twin` and its partitions, on the tables that they point at. The caller
/// holds SHARE ROW EXCLUSIVE there.
pub fn leave_to_legacy(twin: Oid) -> Result<()> {
    session::with_own_tables(|| {
        let statements: Vec<String> = spi::rows(
            "SELECT pg_catalog.to_jsonb(pg_catalog.format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname))
             FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
             WHERE k.contype = 'f' AND t.tgisinternal AND t.tgenabled <> 'D'
               AND t.tgrelid = k.confrelid AND k.confrelid <> k.conrelid
               AND k.conrelid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree($1) p)
             ORDER BY t.oid",
            &[twin.into()],
        )?;
        for statement in statements {
            spi::execute(&statement, &[])?;
        }
        Ok(())
    })
}
