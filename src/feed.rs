//! The change feed: an outbox of the keys of changed rows, for a cache beside the database. Triggers ([`trigger`]) write each key
//! that a transaction changed once, whichever side of a pair is written, and commits wake the consumer once. Whoever takes
//! changes deletes them in the transaction in which it invalidates its cache: there is no place to go on from, so that none can be
//! passed over by a transaction that commits late. See docs/caches.md.

mod buffer;
pub mod ddl;
pub mod trigger;

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::budget;
use crate::pair::store;
use crate::plan::{Plan, feed};
use crate::session::{self, with_own_tables};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// Registers what this needs to hear of. Called once, when the library is loaded.
pub fn init() {
    trigger::init();
}

/// What `enable_change_feed()` was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub key_columns: Vec<String>,
    /// The name by which consumers know the table, whatever its own is.
    pub name: Option<String>,
    /// Lengths of time, as text that every IntervalStyle reads.
    pub retention: String,
    pub max_lag: String,
    pub notify: bool,
}

/// A feed as its table has it.
#[derive(Debug, Clone, Deserialize)]
struct Row {
    id: i32,
    name: String,
    notify: bool,
    key_columns: Vec<String>,
}

impl Row {
    fn triggers(&self) -> feed::Feed {
        feed::Feed {
            id: self.id,
            notify: self.notify,
            key_columns: self.key_columns.iter().map(Ident::new).collect(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Table {
    name: RelName,
    kind: String,
    persistence: String,
    is_partition: bool,
    is_system: bool,
    columns: Vec<String>,
}

fn table(relation: Oid) -> Result<Table> {
    spi::row(
        "SELECT pg_catalog.jsonb_build_object(
             'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname),
             'kind', c.relkind, 'persistence', c.relpersistence, 'is_partition', c.relispartition,
             'is_system', c.oid < 16384 OR n.nspname = 'partition_router',
             'columns', ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
                              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[relation.into()],
    )?
    .ok_or_else(|| Error::UnknownRelation {
        oid: relation.to_u32(),
    })
}

impl Table {
    fn require_suitable(&self, key_columns: &[String]) -> Result<()> {
        let relation = self.name.to_string();
        let unfit = |reason: &str| Error::NotAnOrdinaryTable {
            relation: relation.clone(),
            reason: reason.into(),
        };
        match () {
            () if self.is_system => return Err(Error::SystemTable { relation }),
            () if self.persistence == "t" => return Err(Error::TemporaryTable { relation }),
            // A crash empties it, and nobody hears of that.
            () if self.persistence == "u" => return Err(Error::UnloggedTable { relation }),
            () if self.is_partition => return Err(unfit("it is a partition: name the partitioned table")),
            () if self.kind != "r" && self.kind != "p" => return Err(unfit("it has no rows of its own")),
            () => {}
        }
        match key_columns.iter().find(|key| !self.columns.contains(key)) {
            Some(column) => Err(Error::UnknownColumn {
                relation,
                column: column.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// The tables whose rows a relation stands for: both sides of a pair, else itself. A guard tells of nothing.
fn sides(relation: Oid) -> Result<Vec<Oid>> {
    let Some(pair) = store::find(relation)? else {
        return Ok(vec![relation]);
    };
    if relation != pair.legacy && relation != pair.twin && pair.guard != Some(relation) {
        return Ok(vec![relation]); // a partition, which is refused
    }
    let mut sides = vec![pair.twin];
    if pair.legacy != Oid::INVALID {
        sides.insert(0, pair.legacy);
    }
    Ok(sides)
}

/// The feed that one of these tables has.
fn of(tables: &[Oid]) -> Result<Option<Row>> {
    with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(f) FROM partition_router.change_feed f
             WHERE f.id IN (SELECT t.feed_id FROM partition_router.change_feed_trigger t WHERE t.relation::oid = ANY ($1))
             ORDER BY f.id LIMIT 1",
            &[tables.to_vec().into()],
        )
    })
}

/// The statements that take every trigger of a feed away, wherever it is.
fn uninstall(feed: i32) -> Result<Plan> {
    let triggers: Vec<(RelName, Ident)> = with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_array(
                 pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname), t.trigger)
             FROM partition_router.change_feed_trigger t
             JOIN pg_catalog.pg_class c ON c.oid = t.relation::oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE t.feed_id = $1 AND NOT t.is_inherited ORDER BY c.relispartition, c.oid, t.trigger",
            &[feed.into()],
        )
    })?;
    let mut plan = Plan::default();
    for (table, trigger) in &triggers {
        plan.extend(feed::uninstall(table, trigger));
    }
    Ok(plan)
}

/// The statements that let a table, with its partitions, tell of its changes.
fn install(feed: &feed::Feed, relation: Oid) -> Result<Plan> {
    let mut plan = feed.install(&table(relation)?.name);
    for partition in load::partitions(relation)? {
        plan.extend(feed.install_truncate(&partition.name));
    }
    Ok(plan)
}

/// Lets the owners of these tables add partitions: the server asks them for EXECUTE on the function of a row trigger that comes along.
/// Nobody makes such a trigger by that: [`ddl::refuse_foreign_trigger`].
fn allow(tables: &[Oid]) -> Result<()> {
    let grants: Vec<String> = with_own_tables(|| {
        spi::latest_rows(
            "SELECT DISTINCT pg_catalog.to_jsonb(pg_catalog.format(
                 'GRANT EXECUTE ON FUNCTION partition_router.change_feed() TO %I', pg_catalog.pg_get_userbyid(c.relowner)))
             FROM pg_catalog.pg_class c
             WHERE c.oid = ANY ($1) AND c.relkind = 'p' AND NOT pg_catalog.has_function_privilege(
                 c.relowner, 'partition_router.change_feed()'::pg_catalog.regprocedure, 'EXECUTE')",
            &[tables.to_vec().into()],
        )
    })?;
    for grant in &grants {
        with_own_tables(|| spi::execute(grant, &[]))?;
    }
    Ok(())
}

/// Lets a table tell of its changes, or in another way than before. All that was cached before is to be forgotten.
///
/// # Errors
/// `NotOwner`; `BadArgument` and `UnknownColumn` for keys and names that do not fit; what the table is not; and
/// `LockNotAvailable`.
pub fn enable(relation: Oid, request: &Request, mode: Mode) -> Result<()> {
    let sides = sides(relation)?;
    require(&sides, request)?;
    let before = of(&sides)?;
    let name = match (&request.name, &before) {
        (Some(name), _) => name.clone(),
        (None, Some(before)) => before.name.clone(),
        (None, None) => {
            let RelName { schema, name } = table(relation)?.name;
            format!("{}.{}", schema.as_str(), name.as_str())
        }
    };
    require_free(&name, before.as_ref())?;
    let id = match (&before, mode) {
        (Some(before), _) => before.id,
        (None, Mode::DryRun) => 0,
        (None, Mode::Run) => next_id()?,
    };
    let row = Row {
        id,
        name,
        notify: request.notify,
        key_columns: request.key_columns.clone(),
    };
    let plan = || -> Result<Plan> {
        let mut plan = match &before {
            Some(before) => uninstall(before.id)?,
            None => Plan::default(),
        };
        for side in &sides {
            plan.extend(install(&row.triggers(), *side)?);
        }
        Ok(plan)
    };
    if mode == Mode::DryRun {
        return execute::run(&plan()?, mode);
    }
    // The owner may not call the triggers' function.
    budget::within_budget(relation, || {
        let plan = plan()?;
        with_own_tables(|| execute::run(&plan, mode))
    })?;
    allow(&sides)?;
    remember(&row, request)?;
    trigger::tell_everything(row.id, row.notify)
}

fn require(sides: &[Oid], request: &Request) -> Result<()> {
    let keys = &request.key_columns;
    let wrong = |reason: &str| Error::BadArgument {
        argument: "key_columns".into(),
        reason: reason.into(),
        hint:
            "Name the columns of which the keys of the cache are made, such as the primary key: ARRAY['id']."
                .into(),
    };
    if keys.is_empty() {
        return Err(wrong("it names no column"));
    }
    if (1..keys.len()).any(|i| keys[..i].contains(&keys[i])) {
        return Err(wrong("it names a column twice"));
    }
    for side in sides {
        table(*side)?.require_suitable(keys)?;
        store::require_owner(*side)?;
    }
    let positive: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb($1::interval > '0' AND $2::interval > '0')",
        &[request.retention.as_str().into(), request.max_lag.as_str().into()],
    )?;
    match positive {
        Some(true) => Ok(()),
        _ => Err(Error::BadArgument {
            argument: "retention".into(),
            reason: "retention and max_lag are lengths of time above zero".into(),
            hint: "Use a retention of days and a lag of seconds or minutes.".into(),
        }),
    }
}

fn require_free(name: &str, before: Option<&Row>) -> Result<()> {
    let taken: Option<i32> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(id) FROM partition_router.change_feed WHERE name = $1",
            &[name.into()],
        )
    })?;
    if name.is_empty() || taken.is_some_and(|id| before.is_none_or(|before| before.id != id)) {
        return Err(Error::BadArgument {
            argument: "name".into(),
            reason: format!("\"{name}\" is empty, or the name of another feed"),
            hint: "Choose another name: see partition_router.change_feeds.".into(),
        });
    }
    Ok(())
}

fn next_id() -> Result<i32> {
    let id: Option<i64> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(pg_catalog.nextval('partition_router.change_feed_id_seq'))",
            &[],
        )
    })?;
    id.and_then(|id| i32::try_from(id).ok())
        .ok_or_else(|| Error::Internal("a change feed has no number".into()))
}

fn remember(row: &Row, request: &Request) -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.change_feed AS f (id, name, key_columns, notify, retention, max_lag)
             VALUES ($1, $2, $3, $4, $5::interval, $6::interval)
             ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, key_columns = EXCLUDED.key_columns, notify = EXCLUDED.notify,
                 retention = EXCLUDED.retention, max_lag = EXCLUDED.max_lag",
            &[
                row.id.into(),
                row.name.as_str().into(),
                row.key_columns.clone().into(),
                row.notify.into(),
                request.retention.as_str().into(),
                request.max_lag.as_str().into(),
            ],
        )
    })?;
    Ok(())
}

/// Ends a feed; what nobody has taken goes with it.
pub fn disable(relation: Oid, mode: Mode) -> Result<()> {
    let sides = sides(relation)?;
    for side in &sides {
        store::require_owner(*side)?;
    }
    let Some(row) = of(&sides)? else {
        return Err(Error::BadArgument {
            argument: "relation".into(),
            reason: format!("{} has no change feed", store::display_name(relation)?),
            hint: "See partition_router.change_feeds.".into(),
        });
    };
    if mode == Mode::DryRun {
        return execute::run(&uninstall(row.id)?, mode);
    }
    budget::within_budget(relation, || {
        let plan = uninstall(row.id)?;
        with_own_tables(|| execute::run(&plan, mode))
    })?;
    with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.change_event WHERE feed_id = $1",
            &[row.id.into()],
        )?;
        spi::execute(
            "DELETE FROM partition_router.change_feed WHERE id = $1",
            &[row.id.into()],
        )
    })?;
    Ok(())
}

/// `to` takes the rows of `from` from now on, or follows them: it tells of its changes as `from` does.
pub fn follow(from: Oid, to: Oid) -> Result<()> {
    let Some(row) = of(&[from])? else {
        return Ok(());
    };
    let plan = install(&row.triggers(), to)?;
    with_own_tables(|| execute::run(&plan, Mode::Run))?;
    allow(&[to])
}

/// `(feed, key, when)` of a change; without a key every key of the feed.
pub type Taken = (
    String,
    Option<Vec<Option<String>>>,
    pgrx::datum::TimestampWithTimeZone,
);

#[derive(Deserialize)]
struct TakenRow {
    feed: String,
    key: Option<Vec<Option<String>>>,
    at: f64,
}

#[derive(Deserialize)]
struct Permitted {
    id: i32,
    may: bool,
    has_tables: bool,
}

/// The feeds whose changes the current user may take, or this one: he may read the key columns of one of its tables, by
/// grant as by row security. Of a feed whose tables are gone nothing is left to be read but that all of its keys have changed.
///
/// # Errors
/// `FeedOfOthers` when he may not take those of the feed that he names, or of any at all.
fn permitted(feed: Option<&str>) -> Result<Vec<Permitted>> {
    let user = session::current_user();
    let asked: Vec<Permitted> = with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.jsonb_build_object('id', f.id, 'has_tables', pg_catalog.count(c.oid) > 0, 'may', COALESCE(pg_catalog.bool_or(
                 pg_catalog.pg_has_role($1, c.relowner, 'USAGE')
                 OR (NOT c.relrowsecurity OR r.rolbypassrls)
                     AND pg_catalog.has_any_column_privilege($1, c.oid, 'SELECT')
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                     WHERE a.attrelid = c.oid AND a.attname = ANY (f.key_columns) AND NOT a.attisdropped
                                       AND NOT pg_catalog.has_column_privilege($1, c.oid, a.attnum, 'SELECT'))), true))
             FROM partition_router.change_feed f
             JOIN pg_catalog.pg_roles r ON r.oid = $1
             LEFT JOIN (partition_router.change_feed_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.relation::oid)
                    ON t.feed_id = f.id AND t.is_row AND NOT t.is_inherited
             WHERE $2 IS NULL OR f.name = $2
             GROUP BY f.id",
            &[user.into(), feed.into()],
        )
    })?;
    let is_any = !asked.is_empty();
    let permitted: Vec<Permitted> = asked.into_iter().filter(|f| f.may).collect();
    if is_any && permitted.is_empty() {
        return Err(Error::FeedOfOthers {
            feed: feed.map(Into::into),
        });
    }
    Ok(permitted)
}

/// Takes changes out of the outbox: they are gone when the transaction commits, and back when it does not. Whatever others are taking
/// is left to them.
pub fn take(max_events: i32, feed: Option<&str>) -> Result<Vec<Taken>> {
    if max_events < 1 {
        return Err(Error::BadArgument {
            argument: "max_events".into(),
            reason: format!("it is {max_events}"),
            hint: "Use a number above zero.".into(),
        });
    }
    let permitted = permitted(feed)?;
    let feeds: Vec<i32> = permitted.iter().map(|f| f.id).collect();
    let with_tables: Vec<i32> = permitted.iter().filter(|f| f.has_tables).map(|f| f.id).collect();
    let rows: Vec<TakenRow> = with_own_tables(|| {
        spi::returning_rows(
            "WITH taken AS (
                 DELETE FROM partition_router.change_event WHERE ctid = ANY (ARRAY(
                     SELECT e.ctid FROM partition_router.change_event e
                     WHERE e.feed_id = ANY ($2)
                     LIMIT $1 FOR UPDATE SKIP LOCKED))
                 RETURNING feed_id, key, changed_at)
             SELECT pg_catalog.jsonb_build_object('feed', f.name,
                        'key', CASE WHEN f.id = ANY ($3) THEN t.key END,
                        'at', EXTRACT(epoch FROM t.changed_at)::double precision)
             FROM taken t JOIN partition_router.change_feed f ON f.id = t.feed_id",
            &[i64::from(max_events).into(), feeds.into(), with_tables.into()],
        )
    })?;
    rows.into_iter()
        .map(|row| {
            let at = pgrx::datum::TimestampWithTimeZone::try_from(epoch(row.at))
                .map_err(|_| Error::Internal("a change has no time".into()))?;
            Ok((row.feed, row.key, at))
        })
        .collect()
}

/// Microseconds since 2000, as the server counts.
fn epoch(seconds_since_1970: f64) -> i64 {
    const SECONDS_TO_2000: f64 = 946_684_800.0;
    ((seconds_since_1970 - SECONDS_TO_2000) * 1e6).round() as i64
}

/// What nobody took for longer than a feed keeps it becomes one change of every key: the outbox stays small, and a consumer that
/// comes back misses nothing. Feeds whose tables are gone are forgotten when all is taken.
pub fn retain() -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "WITH old AS (
                 DELETE FROM partition_router.change_event WHERE ctid = ANY (ARRAY(
                     SELECT e.ctid FROM partition_router.change_event e JOIN partition_router.change_feed f ON f.id = e.feed_id
                     WHERE e.key IS NOT NULL AND e.changed_at < pg_catalog.now() - f.retention
                     FOR UPDATE OF e SKIP LOCKED))
                 RETURNING feed_id, changed_at)
             INSERT INTO partition_router.change_event (feed_id, changed_at)
             SELECT o.feed_id, pg_catalog.min(o.changed_at) FROM old o GROUP BY o.feed_id",
            &[],
        )?;
        spi::execute(
            "DELETE FROM partition_router.change_feed f
             WHERE NOT EXISTS (SELECT FROM partition_router.change_feed_trigger t WHERE t.feed_id = f.id)
               AND NOT EXISTS (SELECT FROM partition_router.change_event e WHERE e.feed_id = f.id)",
            &[],
        )
    })?;
    Ok(())
}
