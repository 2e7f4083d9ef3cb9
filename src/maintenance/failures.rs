//! What failed, on its way to the log. A disk that is full fails a task, and then the record of it as well: such a failure waits in
//! this session's memory and is written as soon as there is room, so that it ends no call and is not forgotten by it.

use super::log::{self, Event};
use crate::error::Result;
use crate::locks::budget;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;

thread_local! {
    static WAITING: RefCell<Vec<(Oid, Event)>> = const { RefCell::new(Vec::new()) };
}

/// Records the failure of a task, or keeps it for [`record_waiting`].
pub fn record(parent: Oid, event: Event) -> Result<()> {
    WAITING.with_borrow_mut(|waiting| waiting.push((parent, event)));
    record_waiting()
}

/// Writes what waits, each in a subtransaction of its own. What cannot be written yet stays, and a WARNING says so.
pub fn record_waiting() -> Result<()> {
    // A cancel on the way undoes what was written: all of it waits on.
    let waiting = WAITING.with_borrow(Vec::clone);
    let mut later = Vec::new();
    for (parent, event) in waiting {
        let reason = match budget::subtransaction(|| write(parent, &event)) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(caught) if budget::is_cancel(&caught) => caught.rethrow(),
            Err(caught) => budget::message(&caught),
        };
        pgrx::warning!(
            "a failure of {} is not in partition_router.maintenance_log yet: {reason}",
            event.parent
        );
        later.push((parent, event));
    }
    WAITING.set(later);
    Ok(())
}

fn write(parent: Oid, event: &Event) -> Result<()> {
    log::write(event)?;
    let (state, message) = (event.sqlstate.as_deref(), event.message.as_deref());
    log::remember_error(
        parent,
        &format!("{}: {}", state.unwrap_or_default(), message.unwrap_or_default()),
    )
}
