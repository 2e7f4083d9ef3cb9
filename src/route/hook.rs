//! The planner and the executor, as far as routing has a say in them.
//!
//! A statement is planned for the sides that are right when it is planned, and its plan is marked with what that decision
//! depends on ([`super::mark`]). When the executor starts a marked plan, the decision is made again, with the settings, the
//! parameters and above all the snapshot of the execution. Nearly always it is the same. When it is not, because the plan was
//! cached, the statement runs with a plan for the other sides: one that is kept ([`super::alternatives`]), or a new one.
//!
//! The hooks themselves have no guard and nothing to drop, so that errors of the server and of the user's functions pass
//! them as they are. Whatever else is done here is done in functions that have a guard.
#![allow(unsafe_code)]

use super::choose::{self, Session};
use super::decide::{Decision, Kept, Reason, Side};
use super::mark::{self, Header, Mark, Place};
use super::reading::{self, Reading};
use super::state::{self, Key};
use super::substitute::{self, Columns};
use super::{alternatives, nodes, report, shadow};
use pgrx::pg_sys;
use pgrx::pg_sys::{ParamListInfo, PlannedStmt, Query, QueryDesc};
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int};
use std::ptr::null_mut;
use std::rc::Rc;

static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;
static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;

// SAFETY: the signatures of planner.h and executor.h. pgrx binds them with a guard, which would turn SQLSTATEs that it does
// not know into XX000.
unsafe extern "C-unwind" {
    fn standard_planner(
        query: *mut Query,
        text: *const c_char,
        options: c_int,
        params: ParamListInfo,
    ) -> *mut PlannedStmt;
    fn planner(
        query: *mut Query,
        text: *const c_char,
        options: c_int,
        params: ParamListInfo,
    ) -> *mut PlannedStmt;
    fn standard_ExecutorStart(query: *mut QueryDesc, flags: c_int);
}

/// Called once, when the library is loaded. Plans that were cached before have no mark, so they are made again.
pub fn init() {
    // SAFETY: a backend has one thread; whoever was there before is called in turn.
    unsafe {
        PREVIOUS_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(plan);
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
        pg_sys::ResetPlanCache();
    }
}

/// A statement that the executor wants planned for given sides.
struct Wanted {
    query: *mut Query,
    statement: Header,
    sides: Vec<Side>,
}

thread_local! {
    /// Whether there is one.
    static IS_WANTED: Cell<bool> = const { Cell::new(false) };
    static WANTED: RefCell<Option<Wanted>> = const { RefCell::new(None) };
}

unsafe extern "C-unwind" fn plan(
    query: *mut Query,
    text: *const c_char,
    options: c_int,
    params: ParamListInfo,
) -> *mut PlannedStmt {
    // SAFETY: the server passes a query to plan, and so it is passed on.
    unsafe {
        let is_of_no_concern = !IS_WANTED.get() && reading::is_of_strangers(query);
        let routed = if is_of_no_concern {
            null_mut()
        } else {
            route_query(query, options, params)
        };
        let plan = match PREVIOUS_PLANNER {
            None => standard_planner(query, text, options, params),
            Some(previous) => previous(query, text, options, params),
        };
        if !routed.is_null() {
            mark_plan(plan, routed);
        }
        plan
    }
}

/// What is to be noted on the plan of a query. It is allocated as the server allocates, since an error of the planner passes
/// by without destructors.
struct Routed {
    original: *mut Query,
    header: Header,
    places: *mut Place,
    count: usize,
    /// What [`state::messages`] was before the planner began.
    messages: u64,
    /// What the inlining of functions depends on.
    invalidations: *mut pg_sys::List,
    /// Twins that could not be read as they are: a change of one may make them readable.
    unread: *mut pg_sys::List,
    depends_on_role: bool,
}

/// Makes a query read its twins, before it is planned. Null when it reads no legacy.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn route_query(
    query: *mut Query,
    options: c_int,
    params: ParamListInfo,
) -> *mut Routed {
    // SAFETY: the server passes a query that may be changed.
    unsafe {
        IS_WANTED.set(false);
        let wanted = WANTED.take().filter(|wanted| wanted.query == query);
        if !pg_sys::IsTransactionState() {
            return null_mut();
        }
        let mut glob = pg_sys::PlannerGlobal {
            type_: pg_sys::NodeTag::T_PlannerGlobal,
            boundParams: params,
            ..Default::default()
        };
        let mentions = reading::mentions_a_legacy(query, &mut glob);
        if !mentions && glob.invalItems.is_null() {
            return null_mut();
        }
        let routed = pg_sys::palloc0(std::mem::size_of::<Routed>()).cast::<Routed>();
        (*routed).invalidations = glob.invalItems;
        (*routed).depends_on_role = glob.dependsOnRole;
        if !mentions {
            return routed;
        }
        (*routed).header = match &wanted {
            Some(wanted) => wanted.statement,
            None => Header {
                statement: alternatives::new_statement(),
                cursor_options: options,
                is_generic: params.is_null(),
            },
        };
        (*routed).original = mark::copy_for_mark(query);
        let readings = reading::find(query, (*routed).header.cursor_options);
        (*routed).messages = state::messages();
        (*routed).places = pg_sys::palloc(std::mem::size_of::<Place>() * readings.len()).cast();
        (*routed).count = readings.len();
        let sides = wanted.map(|wanted| wanted.sides);
        (*routed).unread = place_all(query, &readings, sides, params, (*routed).places);
        routed
    }
}

/// Chooses a side for each reading, or takes the sides that are wanted, and changes the query accordingly. `places` has room
/// for a place of each reading. Gives the twins that cannot be read as they are.
unsafe fn place_all(
    query: *mut Query,
    readings: &[Reading],
    wanted: Option<Vec<Side>>,
    params: ParamListInfo,
    places: *mut Place,
) -> *mut pg_sys::List {
    let session = Session::now();
    let mut routed = vec![];
    let mut unread = null_mut();
    for (i, reading) in readings.iter().enumerate() {
        let side = match wanted.as_ref().and_then(|sides| sides.get(i)) {
            Some(side) => *side,
            None => {
                // SAFETY: the reading is of the query, which is valid.
                let tenant = unsafe { choose::tenant_of(reading.tenant, params) };
                session
                    .decide_query(&reading.pair, tenant.as_deref(), reading.kept)
                    .side
            }
        };
        let mut place = Place::new(reading, Side::Legacy, reading.kept);
        if side == Side::Twin && choose::holds(reading.kept).is_none() {
            // SAFETY: within a transaction.
            match unsafe { lock_twin(reading) } {
                Ok((columns, layout)) => {
                    place.side = Side::Twin;
                    place.layout = layout;
                    routed.push((reading, columns));
                }
                Err(kept) => {
                    place.kept = Some(kept);
                    // SAFETY: the list is of the current memory context, as `Routed` is.
                    unread = unsafe { pg_sys::lappend_oid(unread, reading.pair.twin) };
                }
            }
        }
        // SAFETY: as for this function.
        unsafe { places.add(i).write(place) };
    }
    if !routed.is_empty() {
        // SAFETY: the readings are of this query, and nothing has changed it since they were found.
        unsafe { substitute::substitute(query, &routed) };
    }
    unread
}

/// Locks the twin of a reading as a query would; gives where its columns are, and the number of its partitions' layout.
unsafe fn lock_twin(reading: &Reading) -> Result<(Rc<Columns>, i64), Kept> {
    let pair = &reading.pair;
    // SAFETY: within a transaction; the legacy was locked when the query was parsed, or its plan taken from a cache.
    unsafe {
        pg_sys::LockRelationOid(pair.twin, pg_sys::AccessShareLock as i32);
        let columns = substitute::columns(pair.legacy, pair.twin)?;
        // The lock took in what others have done to the twin meanwhile.
        let layout = if state::messages() == reading.messages {
            pair.layout
        } else {
            let now = state::latest(pair.legacy, Key::Legacy).ok_or(Kept::TwinGone)?;
            if (now.id, now.twin) != (pair.id, pair.twin) {
                return Err(Kept::TwinGone);
            }
            now.layout
        };
        Ok((columns, layout))
    }
}

/// What would keep a reading on the legacy whose decision is the twin, when it is planned and run; `pair` is as the statement's
/// snapshot sees it.
///
/// # Safety
/// The reading is of a query that was parsed in this transaction.
pub unsafe fn keeps(reading: &Reading, pair: &state::PairState) -> Option<Kept> {
    // SAFETY: the caller's promise.
    match unsafe { lock_twin(reading) } {
        Err(kept) => Some(kept),
        Ok((_, layout)) => (layout != pair.layout).then_some(Kept::Layout),
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn mark_plan(plan: *mut PlannedStmt, routed: *mut Routed) {
    // SAFETY: `routed` was made by `route_query` for the query that has this plan.
    unsafe {
        let routed = &*routed;
        let places = if routed.count == 0 {
            &mut []
        } else {
            std::slice::from_raw_parts_mut(routed.places, routed.count)
        };
        // Partitions that came or went while the planner looked at them: the plan is of neither state.
        if state::messages() != routed.messages {
            for place in places.iter_mut().filter(|place| place.side == Side::Twin) {
                let now = state::latest(place.legacy, Key::Legacy);
                if now.is_none_or(|now| !place.is_of(&now)) {
                    place.layout = Place::NO_LAYOUT;
                }
            }
        }
        for item in nodes::cells::<pg_sys::Node>(routed.invalidations) {
            (*plan).invalItems = pg_sys::lappend((*plan).invalItems, item.cast());
        }
        (*plan).relationOids = pg_sys::list_concat((*plan).relationOids, routed.unread);
        (*plan).dependsOnRole |= routed.depends_on_role;
        if !places.is_empty() {
            Mark::put(plan, routed.original, routed.header, places);
        }
    }
}

unsafe extern "C-unwind" fn start(desc: *mut QueryDesc, flags: c_int) {
    // SAFETY: the server passes a statement to execute, and so it is passed on.
    unsafe {
        let mut request = check(desc, flags);
        while !request.is_null() {
            let plan = planner(
                (*request).query,
                (*desc).sourceText,
                (*request).options,
                (*request).params,
            );
            request = take_plan(desc, flags, plan, request);
        }
        match PREVIOUS_START {
            None => standard_ExecutorStart(desc, flags),
            Some(previous) => previous(desc, flags),
        }
    }
}

/// A statement to plan again. Allocated as [`Routed`] is.
struct Request {
    query: *mut Query,
    options: c_int,
    params: ParamListInfo,
    tries: u32,
}

/// After so many plans that were out of date when they were made, the legacy is read.
const MAX_TRIES: u32 = 4;

/// What is right for a place now.
pub struct Verdict {
    place: Place,
    pair: Option<std::rc::Rc<state::PairState>>,
    tenant: Option<String>,
    decision: Decision,
}

impl Verdict {
    /// As EXPLAIN shows it; `None` where nothing was decided.
    pub fn line(&self) -> Option<String> {
        let pair = self.pair.as_ref()?;
        Some(report::line(pair, self.decision.side) + &format!(" ({})", self.decision.reason))
    }

    fn is_served_by(&self, place: &Place) -> bool {
        match self.decision.side {
            Side::Legacy => place.side == Side::Legacy,
            Side::Twin => self.pair.as_ref().is_some_and(|pair| place.is_of(pair)),
        }
    }
}

/// Decides for each place of a marked plan under the snapshot of the execution.
///
/// # Safety
/// `desc` has the plan that has the mark, and a snapshot if it reads.
pub unsafe fn decide(desc: *mut QueryDesc, mark: Mark) -> Vec<Verdict> {
    let session = Session::now();
    // SAFETY: the executor is about to run `desc`.
    unsafe {
        mark.places()
            .map(|place| {
                if !session.is_transparent() || (*desc).snapshot.is_null() {
                    let decision = Decision {
                        side: Side::Legacy,
                        reason: Reason::Kept(Kept::NotTransparent),
                    };
                    return Verdict {
                        place,
                        pair: None,
                        tenant: None,
                        decision,
                    };
                }
                let tenant = choose::tenant_of(place.tenant, (*desc).params);
                let pair = state::under(place.legacy, Key::Legacy, (*desc).snapshot);
                let mut decision = match &pair {
                    None => Decision {
                        side: Side::Legacy,
                        reason: Reason::NotPaired,
                    },
                    Some(pair) => session.decide_query(pair, tenant.as_deref(), place.kept),
                };
                // A plan made now is of the pair and its partitions as they are now.
                if let Some(pair) = &pair
                    && decision.side == Side::Twin
                    && !place.is_of(pair)
                    && state::latest(place.legacy, Key::Legacy)
                        .is_none_or(|now| (now.id, now.layout) != (pair.id, pair.layout))
                {
                    decision = Decision {
                        side: Side::Legacy,
                        reason: Reason::Kept(Kept::Layout),
                    };
                }
                Verdict {
                    place,
                    pair,
                    tenant: session.tenant().map(str::to_string).or(tenant),
                    decision,
                }
            })
            .collect()
    }
}

/// Looks whether the plan of a statement is still the right one; null when it is, or another is at hand.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check(desc: *mut QueryDesc, flags: c_int) -> *mut Request {
    // SAFETY: the executor is about to run `desc`.
    unsafe {
        let Some(mark) = Mark::of((*desc).plannedstmt) else {
            return null_mut();
        };
        // Workers of a parallel plan run the leader's.
        if pg_sys::ParallelWorkerNumber >= 0 {
            return null_mut();
        }
        let verdicts = decide(desc, mark);
        if verdicts
            .iter()
            .all(|verdict| verdict.is_served_by(&verdict.place))
        {
            tell(&verdicts, flags);
            return null_mut();
        }
        let sides: Vec<_> = verdicts.iter().map(|verdict| verdict.decision.side).collect();
        let kept = alternatives::find(mark.header().statement, &sides);
        if !kept.is_null()
            && !needs_scrolling(desc, flags)
            && let Some(other) = Mark::of(kept)
            && verdicts
                .iter()
                .zip(other.places())
                .all(|(verdict, place)| verdict.is_served_by(&place))
        {
            (*desc).plannedstmt = kept;
            tell(&verdicts, flags);
            return null_mut();
        }
        request(desc, flags, mark, sides, 0)
    }
}

/// A cursor that was promised to go backwards needs a plan that does; one kept was made without that promise.
unsafe fn needs_scrolling(_desc: *mut QueryDesc, flags: c_int) -> bool {
    flags & pg_sys::EXEC_FLAG_BACKWARD as c_int != 0
}

unsafe fn request(
    desc: *mut QueryDesc,
    flags: c_int,
    mark: Mark,
    sides: Vec<Side>,
    tries: u32,
) -> *mut Request {
    // SAFETY: as for `check`; the request is made in the current memory context, which the executor's is a child of.
    unsafe {
        let header = mark.header();
        let request = pg_sys::palloc0(std::mem::size_of::<Request>()).cast::<Request>();
        let mut options = header.cursor_options;
        if needs_scrolling(desc, flags) {
            options |= pg_sys::CURSOR_OPT_SCROLL as c_int;
        }
        *request = Request {
            query: mark.query_to_plan(),
            options,
            params: if header.is_generic {
                null_mut()
            } else {
                (*desc).params
            },
            tries: tries + 1,
        };
        IS_WANTED.set(true);
        WANTED.replace(Some(Wanted {
            query: (*request).query,
            statement: header,
            sides,
        }));
        request
    }
}

/// Runs a statement with a new plan, unless that is out of date by now: then another is asked for.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn take_plan(
    desc: *mut QueryDesc,
    flags: c_int,
    plan: *mut PlannedStmt,
    request_before: *mut Request,
) -> *mut Request {
    // SAFETY: as for `check`; the plan is one of the request's query.
    unsafe {
        let tries = (*request_before).tries;
        let Some(mark) = Mark::of(plan) else {
            // The pair is gone: the plan reads the table that the statement names.
            (*desc).plannedstmt = plan;
            return null_mut();
        };
        let mut verdicts = decide(desc, mark);
        for verdict in &mut verdicts {
            // What the planner found out keeps this place on the legacy, whatever the rest says.
            if verdict.decision.side == Side::Twin
                && let (Side::Legacy, Some(kept)) = (verdict.place.side, verdict.place.kept)
            {
                verdict.decision = Decision {
                    side: Side::Legacy,
                    reason: Reason::Kept(kept),
                };
            }
        }
        if verdicts
            .iter()
            .all(|verdict| verdict.is_served_by(&verdict.place))
        {
            let sides: Vec<_> = verdicts.iter().map(|verdict| verdict.place.side).collect();
            if mark.header().is_generic && !needs_scrolling(desc, flags) {
                alternatives::keep(mark.header().statement, sides, plan);
            }
            (*desc).plannedstmt = plan;
            tell(&verdicts, flags);
            return null_mut();
        }
        let sides = verdicts
            .iter()
            .map(|verdict| {
                if tries >= MAX_TRIES {
                    Side::Legacy
                } else {
                    verdict.decision.side
                }
            })
            .collect::<Vec<_>>();
        if tries > MAX_TRIES && verdicts.iter().all(|verdict| verdict.place.side == Side::Legacy) {
            (*desc).plannedstmt = plan;
            return null_mut();
        }
        request(desc, flags, mark, sides, tries)
    }
}

/// Tells of what was decided, unless nothing is going to be read.
fn tell(verdicts: &[Verdict], flags: c_int) {
    if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0 || shadow::is_comparing() {
        return;
    }
    for verdict in verdicts {
        let is_own = verdict.decision.reason == Reason::Kept(Kept::Internal);
        if let Some(pair) = verdict.pair.as_ref().filter(|_| !is_own) {
            report::decided(pair, verdict.tenant.as_deref(), verdict.decision);
        }
    }
}
