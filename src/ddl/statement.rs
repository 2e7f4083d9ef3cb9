//! What a parse tree says that the catalog cannot: which relations a statement names, and details that leave no trace.
//! Names are looked up as the statement will look them up: with the session's `search_path`, before it is pinned.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::ident::Ident;
use crate::session::PinnedSettings;
use pgrx::pg_sys;
use pgrx::pg_sys::AlterTableType::*;
use pgrx::pg_sys::{NodeTag, ObjectType, Oid};
use std::ffi::{CStr, c_char, c_int};

/// A statement that may change tables of pairs.
pub enum Statement {
    Alter(Alter),
    CreateIndex {
        table: Oid,
        concurrently: bool,
        node: *mut pg_sys::IndexStmt,
    },
    /// The tables whose indexes go.
    DropIndex {
        tables: Vec<Oid>,
        concurrently: bool,
    },
    CreateTable {
        parents: Vec<Oid>,
        is_partition: bool,
        is_foreign: bool,
    },
    Drop(Dropping),
    Other,
}

/// Where the tables are that a statement drops.
pub enum Dropping {
    Tables(Vec<Oid>),
    /// Whatever these schemas have.
    Schemas(Vec<Oid>),
    /// Whatever these roles have.
    Owned(Vec<Oid>),
}

/// A statement that changes one table.
#[derive(Default)]
pub struct Alter {
    pub table: Oid,
    /// The lock that the statement takes; `None` when both sides need none.
    pub lock: Option<c_int>,
    pub commands: Vec<Command>,
}

/// A part of an ALTER TABLE.
pub struct Command {
    pub kind: pg_sys::AlterTableType::Type,
    pub name: Option<Ident>,
    pub cascade: bool,
    /// The other table that it names.
    pub names: Oid,
    def: *mut pg_sys::Node,
}

impl Command {
    /// What concerns only the table itself, not the rows that it takes.
    pub fn is_local(&self) -> bool {
        [
            AT_SetRelOptions,
            AT_ResetRelOptions,
            AT_ReplaceRelOptions,
            AT_SetTableSpace,
            AT_ClusterOn,
            AT_DropCluster,
            AT_EnableRule,
            AT_EnableAlwaysRule,
            AT_EnableReplicaRule,
            AT_DisableRule,
            AT_AttachPartition,
        ]
        .contains(&self.kind)
    }

    pub fn is_detach(&self) -> bool {
        [AT_DetachPartition, AT_DetachPartitionFinalize].contains(&self.kind)
    }

    pub fn is_inherit(&self) -> bool {
        [AT_AddInherit, AT_DropInherit].contains(&self.kind)
    }

    pub fn is_owner(&self) -> bool {
        self.kind == AT_ChangeOwner
    }

    pub fn is_attach(&self) -> bool {
        self.kind == AT_AttachPartition
    }

    /// Whether a sequence that the column owns goes with it.
    pub fn drops_sequence(&self) -> bool {
        [AT_DropColumn, AT_DropIdentity].contains(&self.kind)
    }

    /// `ALTER COLUMN … TYPE … USING`: the expression, and whether it is volatile. To be called with the table locked.
    pub fn using(&self, table: Oid) -> Result<Option<(String, bool)>> {
        if self.kind != AT_AlterColumnType || self.def.is_null() {
            return Ok(None);
        }
        // SAFETY: the definition of such a command is a ColumnDef.
        let raw = unsafe { (*self.def.cast::<pg_sys::ColumnDef>()).raw_default };
        if raw.is_null() {
            return Ok(None);
        }
        // SAFETY: as above; the expression is copied before it is transformed.
        unsafe { deparse(table, raw).map(Some) }
    }
}

impl Alter {
    /// Columns that the statement both adds and gives a default: rows that are there get another value than later ones.
    pub fn added_and_defaulted(&self) -> Option<&Ident> {
        let of = |kind| {
            self.commands
                .iter()
                .filter(move |c| c.kind == kind)
                .filter_map(|c| c.name.as_ref())
        };
        of(AT_AddColumn).find(|added| of(AT_ColumnDefault).any(|set| set == *added))
    }
}

/// # Safety
/// `node` is the parse tree of a utility statement.
pub unsafe fn read(node: *mut pg_sys::Node) -> Statement {
    // SAFETY: the caller's promise.
    unsafe {
        match (*node).type_ {
            NodeTag::T_AlterTableStmt => alter_table(node.cast()),
            NodeTag::T_RenameStmt => rename(node.cast()),
            NodeTag::T_CreateTrigStmt => Statement::Alter(Alter {
                table: table_of((*node.cast::<pg_sys::CreateTrigStmt>()).relation),
                ..Alter::default()
            }),
            NodeTag::T_IndexStmt => {
                let node = node.cast::<pg_sys::IndexStmt>();
                Statement::CreateIndex {
                    table: table_of((*node).relation),
                    concurrently: (*node).concurrent,
                    node,
                }
            }
            NodeTag::T_DropStmt => drop(node.cast()),
            NodeTag::T_DropOwnedStmt => {
                let roles = (*node.cast::<pg_sys::DropOwnedStmt>()).roles;
                let oids = elements(roles).map(|role| pg_sys::get_rolespec_oid(role.cast(), true));
                Statement::Drop(Dropping::Owned(oids.collect()))
            }
            NodeTag::T_CreateStmt => create_table(node.cast(), false),
            NodeTag::T_CreateForeignTableStmt => create_table(node.cast(), true),
            _ => Statement::Other,
        }
    }
}

/// # Safety
/// `node` is the parse tree of such a statement.
unsafe fn alter_table(node: *mut pg_sys::AlterTableStmt) -> Statement {
    // SAFETY: the caller's promise.
    unsafe {
        let commands = elements((*node).cmds).map(|command| read_command(command.cast()));
        let table = match (*node).objtype {
            ObjectType::OBJECT_TABLE | ObjectType::OBJECT_INDEX => table_of((*node).relation),
            _ => Oid::INVALID,
        };
        Statement::Alter(Alter {
            table,
            lock: Some(pg_sys::AlterTableGetLockLevel((*node).cmds)),
            commands: commands.collect(),
        })
    }
}

/// # Safety
/// `command` is one of an ALTER TABLE.
unsafe fn read_command(command: *mut pg_sys::AlterTableCmd) -> Command {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = (*command).subtype;
        let def = (*command).def;
        let mut name = text((*command).name);
        let mut names = Oid::INVALID;
        if !def.is_null() {
            match (*def).type_ {
                NodeTag::T_ColumnDef if name.is_none() => {
                    name = text((*def.cast::<pg_sys::ColumnDef>()).colname)
                }
                NodeTag::T_PartitionCmd => names = oid_of((*def.cast::<pg_sys::PartitionCmd>()).name),
                NodeTag::T_RangeVar => names = oid_of(def.cast()),
                _ => {}
            }
        }
        Command {
            kind,
            name,
            cascade: (*command).behavior == pg_sys::DropBehavior::DROP_CASCADE,
            names,
            def,
        }
    }
}

/// # Safety
/// `node` is the parse tree of such a statement.
unsafe fn rename(node: *mut pg_sys::RenameStmt) -> Statement {
    // SAFETY: the caller's promise.
    unsafe {
        let lock = match (*node).renameType {
            ObjectType::OBJECT_COLUMN | ObjectType::OBJECT_TABCONSTRAINT => {
                Some(pg_sys::AccessExclusiveLock as c_int)
            }
            ObjectType::OBJECT_TRIGGER => None,
            _ => return Statement::Other, // a table or an index may be called as one likes
        };
        Statement::Alter(Alter {
            table: table_of((*node).relation),
            lock,
            ..Alter::default()
        })
    }
}

/// # Safety
/// `node` is the parse tree of such a statement.
unsafe fn drop(node: *mut pg_sys::DropStmt) -> Statement {
    // SAFETY: the caller's promise.
    unsafe {
        let tables = || {
            elements((*node).objects)
                .map(|names| table_of(pg_sys::makeRangeVarFromNameList(names.cast())))
                .collect()
        };
        match (*node).removeType {
            ObjectType::OBJECT_INDEX => Statement::DropIndex {
                tables: tables(),
                concurrently: (*node).concurrent,
            },
            ObjectType::OBJECT_TABLE | ObjectType::OBJECT_FOREIGN_TABLE => {
                Statement::Drop(Dropping::Tables(tables()))
            }
            ObjectType::OBJECT_SCHEMA => {
                let schemas = elements((*node).objects).map(|name| {
                    let names = pg_sys::lappend(std::ptr::null_mut(), name.cast());
                    pg_sys::get_namespace_oid(pg_sys::NameListToString(names), true)
                });
                Statement::Drop(Dropping::Schemas(schemas.collect()))
            }
            _ => Statement::Other, // no event trigger hears of it before it ends
        }
    }
}

/// # Safety
/// `node` is the parse tree of such a statement.
unsafe fn create_table(node: *mut pg_sys::CreateStmt, is_foreign: bool) -> Statement {
    // SAFETY: the caller's promise.
    unsafe {
        Statement::CreateTable {
            parents: elements((*node).inhRelations)
                .map(|parent| oid_of(parent.cast()))
                .collect(),
            is_partition: !(*node).partbound.is_null(),
            is_foreign,
        }
    }
}

/// The elements of a list of nodes.
///
/// # Safety
/// `list` is null or a list of nodes in a parse tree, which outlives the result.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::Node> {
    let length = if list.is_null() {
        0
    } else {
        // SAFETY: the caller's promise.
        unsafe { (*list).length }
    };
    // SAFETY: the list has as many elements, and lives as long as the statement.
    (0..length as usize).map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value.cast() })
}

/// # Safety
/// `name` is null or a string of a parse tree.
unsafe fn text(name: *const c_char) -> Option<Ident> {
    // SAFETY: a name in a parse tree is null or ends with a zero byte.
    (!name.is_null()).then(|| Ident::new(unsafe { CStr::from_ptr(name) }.to_string_lossy()))
}

/// The relation that a name means now; invalid when there is none. Takes no lock: that comes once it is known to matter.
///
/// # Safety
/// `name` is null or of a parse tree.
unsafe fn oid_of(name: *mut pg_sys::RangeVar) -> Oid {
    if name.is_null() {
        return Oid::INVALID;
    }
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as c_int,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// As [`oid_of`]; of an index its table.
///
/// # Safety
/// As for [`oid_of`].
unsafe fn table_of(name: *mut pg_sys::RangeVar) -> Oid {
    // SAFETY: the caller's promise.
    unsafe {
        let oid = oid_of(name);
        match pg_sys::get_rel_relkind(oid) as u8 {
            pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => pg_sys::IndexGetRelation(oid, true),
            _ => oid,
        }
    }
}

/// An expression over the columns of a table as the server would print it, and whether it is volatile.
///
/// # Safety
/// `raw` is an expression as parsed; the table is locked.
unsafe fn deparse(table: Oid, raw: *mut pg_sys::Node) -> Result<(String, bool)> {
    // SAFETY: the caller's promise.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as c_int);
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        let item = pg_sys::addRangeTableEntryForRelation(
            state,
            relation,
            pg_sys::AccessShareLock as c_int,
            std::ptr::null_mut(),
            false,
            true,
        );
        pg_sys::addNSItemToQuery(state, item, false, true, true);
        let expression = pg_sys::transformExpr(
            state,
            pg_sys::copyObjectImpl(raw.cast()).cast(),
            pg_sys::ParseExprKind::EXPR_KIND_ALTER_COL_TRANSFORM,
        );
        pg_sys::assign_expr_collations(state, expression);
        let volatile = pg_sys::contain_volatile_functions(expression);
        let context = pg_sys::deparse_context_for((*(*relation).rd_rel).relname.data.as_ptr(), table);
        let printed = {
            let _path = PinnedSettings::search_path();
            pg_sys::deparse_expression(expression, context, false, false)
        };
        pg_sys::free_parsestate(state);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        let printed = CStr::from_ptr(printed).to_str();
        Ok((
            printed.map_err(|e| Error::Internal(e.to_string()))?.into(),
            volatile,
        ))
    }
}

/// Whether a column's default, also one that comes from its type, is another value each time.
pub fn has_volatile_default(table: Oid, column: &Ident) -> Result<bool> {
    let name = std::ffi::CString::new(column.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: the relation is opened and closed here; the number is one of its columns'.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as c_int);
        let number = pg_sys::get_attnum(table, name.as_ptr());
        let expression = pg_sys::build_column_default(relation, number.into());
        let volatile = !expression.is_null() && pg_sys::contain_volatile_functions(expression);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        Ok(volatile)
    }
}
