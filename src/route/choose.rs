//! Feeds the decision: settings, the pair under a snapshot, the tenant of a place in a query, and what this transaction is
//! in the middle of.
#![allow(unsafe_code)]

use super::decide::{self, Decision, Inputs, Kept, Reason, Rollout, Side};
use super::nodes::{cast, cells};
use super::state::PairState;
use crate::pair::Phase;
use crate::sync::frames;
use crate::{compat, settings};
use pgrx::pg_sys::{self, Const, Node, NodeTag, Oid, Param};
use pgrx::{FromDatum, Uuid};
use std::cell::Cell;
use std::ffi::CStr;

/// What a session has set, read once a statement.
pub struct Session {
    routing_enabled: bool,
    transparent: bool,
    use_partitioned_tables: bool,
    tenant: Option<String>,
    requested: Option<bool>,
}

thread_local! {
    /// How many times this backend is inside of code of the extension that means the table that it names.
    static UNROUTED: Cell<u32> = const { Cell::new(0) };
    /// The side that a comparison runs a statement on.
    static ASKED_FOR: Cell<Option<Side>> = const { Cell::new(None) };
}

/// While it lives, plain SQL reads the tables that it names.
pub struct Unrouted;

impl Unrouted {
    pub fn new() -> Self {
        UNROUTED.set(UNROUTED.get() + 1);
        Unrouted
    }
}

impl Drop for Unrouted {
    fn drop(&mut self) {
        UNROUTED.set(UNROUTED.get().saturating_sub(1));
    }
}

/// While it lives, plain SQL reads this side, where it may.
pub struct AskedFor(Option<Side>);

impl AskedFor {
    pub fn new(side: Side) -> Self {
        AskedFor(ASKED_FOR.replace(Some(side)))
    }
}

impl Drop for AskedFor {
    fn drop(&mut self) {
        ASKED_FOR.set(self.0);
    }
}

pub fn is_unrouted() -> bool {
    UNROUTED.get() > 0
}

impl Session {
    pub fn now() -> Session {
        Session {
            routing_enabled: settings::enable_partition_routing(),
            transparent: settings::transparent(),
            use_partitioned_tables: settings::use_partitioned_tables(),
            tenant: settings::tenant(),
            requested: ASKED_FOR.get().map(|side| side == Side::Twin),
        }
    }

    /// Whether plain SQL is routed at all.
    pub fn is_transparent(&self) -> bool {
        (self.transparent || self.requested.is_some()) && !is_unrouted()
    }

    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// What `route()` says.
    pub fn decide(&self, pair: &PairState, tenant: Option<&str>, requested: Option<bool>) -> Decision {
        decide::decide(&self.inputs(pair.phase, pair, tenant, requested))
    }

    fn inputs<'a>(
        &'a self,
        phase: Phase,
        pair: &'a PairState,
        tenant: Option<&'a str>,
        requested: Option<bool>,
    ) -> Inputs<'a> {
        let rollout: &Rollout = &pair.rollout;
        Inputs {
            routing_enabled: self.routing_enabled,
            phase,
            proof: pair.proof,
            requested,
            use_partitioned_tables: self.use_partitioned_tables,
            tenant: tenant.or(self.tenant.as_deref()),
            rollout,
        }
    }

    /// The side that plain SQL reads. `tenant` is that of the query, which counts where the session names none.
    pub fn decide_query(&self, pair: &PairState, tenant: Option<&str>, kept: Option<Kept>) -> Decision {
        let stays = |kept| Decision {
            side: Side::Legacy,
            reason: Reason::Kept(kept),
        };
        if is_unrouted() {
            return stays(Kept::Internal);
        }
        if !self.is_transparent() {
            return stays(Kept::NotTransparent);
        }
        // The name of the legacy is that of the twin now: who names the old table means it.
        if pair.phase == Phase::Switched && self.requested.is_none() {
            return Decision {
                side: Side::Legacy,
                reason: Reason::Phase(pair.phase),
            };
        }
        let tenant = self.tenant.as_deref().or(tenant);
        let decision = decide::decide(&self.inputs(pair.phase, pair, tenant, self.requested));
        if decision.side == Side::Legacy {
            return decision;
        }
        match holds(kept).or_else(|| in_the_middle(pair)) {
            Some(kept) => stays(kept),
            None => decision,
        }
    }
}

/// What keeps a place on the legacy in this transaction: nobody can write through a cursor of one that is read-only. It
/// stays so to its end, while a subtransaction may be read-only in one that is not.
pub fn holds(kept: Option<Kept>) -> Option<Kept> {
    // SAFETY: plain reads.
    let is_read_only = || unsafe { pg_sys::XactReadOnly && pg_sys::GetCurrentTransactionNestLevel() == 1 };
    kept.filter(|kept| *kept != Kept::Cursor || !is_read_only())
}

/// What this transaction has written to one side and not yet carried to the other.
fn in_the_middle(pair: &PairState) -> Option<Kept> {
    // SAFETY: plain reads, and a look into the relation cache.
    unsafe {
        if pg_sys::GetTopTransactionIdIfAny() == pg_sys::InvalidTransactionId {
            return None;
        }
        if frames::is_nested(pair.id) {
            return Some(Kept::WriteUnderWay);
        }
        compat::has_new_file(pair.legacy).then_some(Kept::Truncated)
    }
}

/// The text of a tenant that a place of a query names: of a constant, or of a parameter whose value is known.
///
/// # Safety
/// `node` is null or an expression as [`super::reading`] finds them; `params` is null or valid.
pub unsafe fn tenant_of(node: *mut Node, params: pg_sys::ParamListInfo) -> Option<String> {
    // SAFETY: as for this function.
    unsafe {
        if let Some(constant) = cast::<Const>(node, NodeTag::T_Const) {
            return text_of(
                (*constant).consttype,
                (*constant).constvalue,
                (*constant).constisnull,
            );
        }
        let parameter = cast::<Param>(node, NodeTag::T_Param)?;
        let number = (*parameter).paramid;
        if params.is_null() || number <= 0 || number > (*params).numParams {
            return None;
        }
        let mut workspace = pg_sys::ParamExternData::default();
        let value = match (*params).paramFetch {
            Some(fetch) => fetch(params, number, true, &mut workspace),
            None => (*params).params.as_mut_ptr().add(number as usize - 1),
        };
        // A parameter of another type than the query was made for is an error, which the executor will report.
        if value.is_null() || (*value).ptype != (*parameter).paramtype {
            return None;
        }
        text_of((*value).ptype, (*value).value, (*value).isnull)
    }
}

/// Whether values of a type name tenants.
pub fn names_tenants(type_oid: Oid) -> bool {
    // SAFETY: a look-up in the catalog cache.
    let base = unsafe { pg_sys::getBaseType(type_oid) };
    [
        pg_sys::TEXTOID,
        pg_sys::VARCHAROID,
        pg_sys::BPCHAROID,
        pg_sys::NAMEOID,
        pg_sys::INT2OID,
        pg_sys::INT4OID,
        pg_sys::INT8OID,
        pg_sys::UUIDOID,
    ]
    .contains(&base)
}

/// The text of a value, without a setting's influence.
unsafe fn text_of(type_oid: Oid, value: pg_sys::Datum, is_null: bool) -> Option<String> {
    if is_null {
        return None;
    }
    // SAFETY: the value is of that type.
    unsafe {
        match pg_sys::getBaseType(type_oid) {
            pg_sys::TEXTOID | pg_sys::VARCHAROID => String::from_datum(value, false),
            // Blanks at the end have no meaning in a character(n).
            pg_sys::BPCHAROID => {
                String::from_datum(value, false).map(|text| text.trim_end_matches(' ').to_string())
            }
            pg_sys::NAMEOID => {
                <&CStr>::from_datum(value, false).map(|name| name.to_string_lossy().into_owned())
            }
            pg_sys::INT2OID => i16::from_datum(value, false).map(|number| number.to_string()),
            pg_sys::INT4OID => i32::from_datum(value, false).map(|number| number.to_string()),
            pg_sys::INT8OID => i64::from_datum(value, false).map(|number| number.to_string()),
            pg_sys::UUIDOID => Uuid::from_datum(value, false).map(|uuid| uuid.to_string()),
            _ => None,
        }
    }
}

/// The oids of a list of oids.
///
/// # Safety
/// `list` is null or a valid list of oids.
pub unsafe fn oids(list: *const pg_sys::List) -> Vec<u32> {
    // SAFETY: as for this function; an oid is the low half of a cell.
    unsafe { cells::<u8>(list).map(|cell| cell as usize as u32).collect() }
}
