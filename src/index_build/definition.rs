//! What index is wanted. The server reads the definition: it is parsed as a statement, and made on the root alone, where
//! there is nothing to build, and undone. What the server prints of it then is what partitions get.
#![allow(unsafe_code)]

use super::tree;
use crate::ddl::trial;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::plan::create_index::{Have, Wanted};
use crate::session::PinnedSettings;
use pgrx::pg_sys;
use pgrx::pg_sys::{NodeTag, Oid};
use std::ffi::{CStr, CString};

fn bad(reason: String) -> Error {
    Error::BadArgument {
        argument: "definition".into(),
        reason,
        hint: "Give a CREATE INDEX statement for the table, or what follows the table's name in one, such as '(a, b)'."
            .into(),
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|e| Error::Internal(e.to_string()))
}

/// # Safety
/// `text` is null or a C string of the server.
unsafe fn owned(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The name that a definition gives to the index.
pub fn given_name(definition: &str, named: &RelName) -> Result<Option<Ident>> {
    let statement = parse(definition, named)?;
    // SAFETY: `parse` gave the tree.
    Ok(unsafe { owned((*statement).idxname) }.map(Ident::new))
}

/// Parses a definition. The tree lives in the current memory context.
///
/// # Errors
/// The server's for what is no SQL; `BadArgument` for any other statement, for several, and for one about another table.
pub fn parse(definition: &str, table: &RelName) -> Result<*mut pg_sys::IndexStmt> {
    let begins = definition.split_whitespace().next().unwrap_or_default();
    let text = if begins.eq_ignore_ascii_case("create") {
        definition.to_owned()
    } else {
        format!("CREATE INDEX ON {table} {definition}")
    };
    let text = c_string(&text)?;
    // SAFETY: the parser allocates what it gives in the current memory context; nodes are looked at by their tags.
    unsafe {
        let statements = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if statements.is_null() || (*statements).length != 1 {
            return Err(bad("it is not one statement".into()));
        }
        let raw = pg_sys::list_nth(statements, 0).cast::<pg_sys::RawStmt>();
        let statement = (*raw).stmt;
        if (*statement).type_ != NodeTag::T_IndexStmt {
            return Err(bad("it is another statement than CREATE INDEX".into()));
        }
        let statement = statement.cast::<pg_sys::IndexStmt>();
        let relation = (*statement).relation;
        let (schema, name) = (owned((*relation).schemaname), owned((*relation).relname));
        if name.as_deref() != Some(table.name.as_str())
            || schema.is_some_and(|schema| schema != table.schema.as_str())
        {
            return Err(bad(format!("it is about another table than {table}")));
        }
        Ok(statement)
    }
}

/// The index that a definition asks for, and the tablespace that it names. Nothing stays of the try; it keeps writers
/// out for a moment, within the lock budget. Names in the definition are looked up in `path`. The definition is about `named`, which is
/// `table`, or the other side of its pair.
pub fn wanted(
    root: Oid,
    table: &RelName,
    named: &RelName,
    definition: &str,
    path: &str,
) -> Result<(Wanted, Option<Ident>)> {
    let statement = parse(definition, named)?;
    // SAFETY: `parse` gave the tree.
    let (given, tablespace) = unsafe {
        (
            owned((*statement).idxname),
            owned((*statement).tableSpace).map(Ident::new),
        )
    };
    let before = tree::indexes(root)?;
    let have = trial::undone(
        root,
        || {
            let _path = PinnedSettings::new(&[(c"search_path", path)]);
            // SAFETY: as above.
            unsafe { trial::make(statement, table, |_| {}) }
        },
        || {
            let is_new = |index: &Have| before.iter().all(|old| old.oid != index.oid);
            Ok(tree::indexes(root)?.into_iter().find(is_new))
        },
    )?;
    // A name is that of the one index which the caller asked for.
    let given = given.filter(|_| table == named);
    let is_named = given.is_some();
    let wanted = Wanted {
        name: given.map_or(have.name, Ident::new),
        is_named,
        unique: have.unique,
        definition: have.definition,
    };
    Ok((wanted, tablespace))
}
