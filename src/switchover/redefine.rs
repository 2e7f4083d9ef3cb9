//! CREATE OR REPLACE MATERIALIZED VIEW, as it were: the server has it for views only, though both are kept alike.
#![allow(unsafe_code)]

use crate::compat;
use crate::error::{Error, Result};
use crate::pair::store;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::CString;

/// Gives a materialized view another query. The server checks that the columns have the same types; the rows stay.
///
/// # Errors
/// `42501` unless the caller owns the view; `42809` for anything else than a materialized view; `22023` unless the definition is
/// one query that only reads.
pub fn materialized_view(view: Oid, definition: &str) -> Result<()> {
    store::require_owner(view)?;
    if crate::ddl::pairs::kind(view) != pg_sys::RELKIND_MATVIEW {
        return Err(Error::NotAMaterializedView {
            relation: store::display_name(view)?,
        });
    }
    let text = CString::new(definition).map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: the trees are the server's own, made in the memory of this call, which also keeps the text; the relation is
    // locked by the function that stores the rule.
    unsafe {
        let raw = pg_sys::pg_parse_query(text.as_ptr());
        if raw.is_null() || (*raw).length != 1 {
            return Err(not_a_query());
        }
        let statement: *mut pg_sys::RawStmt = (*(*raw).elements).ptr_value.cast();
        let query = compat::analyze_only(statement, text.as_ptr());
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT || (*query).hasModifyingCTE {
            return Err(not_a_query());
        }
        compat::StoreViewQuery(view, query, true);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

fn not_a_query() -> Error {
    Error::BadArgument {
        argument: "definition".into(),
        reason: "it is not one query that only reads".into(),
        hint: "Give what pg_get_viewdef() gives.".into(),
    }
}
