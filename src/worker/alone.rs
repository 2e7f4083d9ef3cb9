//! Statements that commit by themselves (CREATE INDEX CONCURRENTLY) and so run in no function: a background worker runs them as a
//! session does that sends them alone.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;
use std::ffi::CString;

/// A utility statement as the server takes it.
///
/// # Safety
/// `statement` is the parse tree of a utility statement; it must live as long as what is given.
pub unsafe fn wrap(statement: *mut pg_sys::Node) -> *mut pg_sys::PlannedStmt {
    // SAFETY: a new node, zeroed.
    unsafe {
        let wrapper = pg_sys::palloc0(size_of::<pg_sys::PlannedStmt>()).cast::<pg_sys::PlannedStmt>();
        (*wrapper).type_ = NodeTag::T_PlannedStmt;
        (*wrapper).commandType = pg_sys::CmdType::CMD_UTILITY;
        (*wrapper).utilityStmt = statement;
        (*wrapper).stmt_location = -1;
        wrapper
    }
}

/// Runs one utility statement outside of any transaction block, in a background worker. `pg_stat_activity` shows it.
///
/// # Errors
/// The server's, raised: whoever catches them aborts the transaction.
pub fn run(statement: &str) -> Result<()> {
    let text = CString::new(statement).map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: the frame in which the server runs a statement of a session (`exec_simple_query`, `PortalRunUtility`): the tree
    // and its text outlive the transactions that the statement ends, and it may have let go of the snapshot.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        // What the statement notes before it commits has to be there afterwards; this process ends soon.
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let kept = pg_sys::pstrdup(text.as_ptr());
        let statements = pg_sys::raw_parser(kept, pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let raw = pg_sys::list_nth(statements, 0).cast::<pg_sys::RawStmt>();
        let wrapper = wrap((*raw).stmt);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::ProcessUtility(
            wrapper,
            kept,
            false,
            pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone),
            std::ptr::null_mut(),
        );
        if pg_sys::ActiveSnapshotSet() {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    Ok(())
}
