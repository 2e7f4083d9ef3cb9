//! Puts a partitioned table under maintenance, and changes what maintenance does for it.

use super::table::{self, Managed, Partitioned, PolicyRow};
use super::template;
use crate::archive;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, Literal};
use crate::pair;
use crate::plan::Plan;
use crate::policy::RetentionAction;
use crate::session::with_own_tables;
use crate::{spi, twin};
use pgrx::pg_sys::Oid;

const MAX_PREMAKE: i32 = 1000;
/// What retention becomes when its action is chosen and its length is not.
const DEFAULT_RETENTION: &str = "24 mons";

/// Rules that a call names: those left out stay as they are.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub premake: Option<i32>,
    pub retention: Option<String>,
    pub retention_action: Option<String>,
    pub archive_schema: Option<Ident>,
    pub timezone: Option<String>,
    pub retention_count: Option<i32>,
    pub min_partitions: Option<i32>,
    pub archive_format: Option<String>,
    pub archive_function: Option<String>,
    /// Empty text takes it back.
    pub origin: Option<String>,
    /// The partitioned table itself takes it back.
    pub template: Option<Oid>,
}

impl Change {
    /// The rules after the change. Whoever says what retention does wants retention.
    fn apply(self, mut row: PolicyRow, table: &Partitioned) -> Result<PolicyRow> {
        let places = [
            self.archive_schema.is_some(),
            self.archive_format.is_some(),
            self.archive_function.is_some(),
        ];
        let is_elsewhere = places.contains(&true);
        let chosen = self.retention_action.is_some() || is_elsewhere;
        row.premake = self.premake.unwrap_or(row.premake);
        row.retention_count = self.retention_count.or(row.retention_count);
        row.min_partitions = self.min_partitions.unwrap_or(row.min_partitions);
        row.retention = self.retention.or(row.retention);
        if chosen && !row.retires() {
            row.retention = Some(DEFAULT_RETENTION.to_owned());
        }
        row.retention_action = self.retention_action.unwrap_or(row.retention_action);
        if is_elsewhere {
            // Archives go to one place.
            row.archive_schema = self.archive_schema;
            row.archive_format = self.archive_format;
            row.archive_function = self.archive_function;
        }
        row.timezone = self.timezone.unwrap_or(row.timezone);
        if let Some(origin) = &self.origin {
            row.origin = twin::normal_origin(Some(origin), &row.partition_interval)?;
        }
        if let Some(oid) = self.template {
            row.template = match oid == table.oid() {
                true => None,
                false => Some(template::named(table, oid)?),
            };
        }
        Ok(row)
    }
}

/// Puts a partitioned table under maintenance; of one by hash or list, whose partitions have ranges, each of these.
pub fn manage(parent: Oid, partition_interval: &str, change: Change, mode: Mode) -> Result<()> {
    pair::store::require_owner(parent)?;
    let below = table::ranges_below(parent)?;
    if below.is_empty() {
        return manage_one(parent, partition_interval, change, mode);
    }
    let (known, new): (Vec<Oid>, Vec<Oid>) = below
        .into_iter()
        .partition(|table| table::resolve(*table).is_ok());
    if new.is_empty() && !known.is_empty() {
        return Err(Error::AlreadyManaged {
            relation: table::display(parent)?,
        });
    }
    new.into_iter()
        .try_for_each(|table| manage_one(table, partition_interval, change.clone(), mode))
}

fn manage_one(parent: Oid, partition_interval: &str, change: Change, mode: Mode) -> Result<()> {
    pair::store::require_owner(parent)?;
    let table = range_table(parent)?;
    if let Ok(target) = table::resolve(parent) {
        return Err(match target.pair {
            Some(pair) => Error::AlreadyPaired {
                relation: table.display,
                phase: pair.phase.as_str().into(),
            },
            None => Error::AlreadyManaged {
                relation: table.display,
            },
        });
    }
    let row = PolicyRow {
        base_name: table.name.name.clone(),
        partition_interval: partition_interval.into(),
        premake: 3,
        retention: None,
        retention_count: None,
        min_partitions: 1,
        retention_action: RetentionAction::Drop.to_string(),
        archive_schema: None,
        archive_format: None,
        archive_function: None,
        timezone: "UTC".into(),
        origin: None,
        template: None,
    };
    let row = change.apply(row, &table)?;
    check(parent, &row)?;
    let statement = format!(
        "INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, retention, \
         retention_action, archive_schema, timezone, retention_count, min_partitions, archive_format, archive_function, origin, template) \
         VALUES ({parent}::pg_catalog.regclass, {base}, {interval}, {rules})",
        parent = Literal(&table.name.to_string()),
        base = Literal(row.base_name.as_str()),
        interval = Literal(partition_interval),
        rules = values(&row).join(", "),
    );
    write(
        &format!("put {} under maintenance", table.display),
        statement,
        mode,
    )
}

/// Changes the policy of a table; of one by hash or list, those of the partitions that have any.
pub fn set_policy(relation: Oid, change: Change, mode: Mode) -> Result<()> {
    let below = table::managed_below(relation)?;
    if below.is_empty() {
        return set_policy_of_one(relation, change, mode);
    }
    below
        .into_iter()
        .try_for_each(|table| set_policy_of_one(table, change.clone(), mode))
}

fn set_policy_of_one(relation: Oid, change: Change, mode: Mode) -> Result<()> {
    let target = table::resolve(relation)?;
    pair::store::require_owner(target.parent)?;
    let table = range_table(target.parent)?;
    let Some(row) = target.policy else {
        return Err(Error::NotManaged {
            relation: table.display,
        });
    };
    let row = change.apply(row, &table)?;
    check(target.parent, &row)?;
    let names = [
        "premake",
        "retention",
        "retention_action",
        "archive_schema",
        "timezone",
        "retention_count",
        "min_partitions",
        "archive_format",
        "archive_function",
        "origin",
        "template",
    ];
    let assignments: Vec<_> = names
        .iter()
        .zip(values(&row))
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let statement = format!(
        "UPDATE partition_router.policy SET {} WHERE parent = {}::pg_catalog.regclass",
        assignments.join(", "),
        Literal(&table.name.to_string())
    );
    write(
        &format!("change the policy of {}", table.display),
        statement,
        mode,
    )
}

/// The values of a policy's rules, as literals, in the order of the table's columns.
fn values(row: &PolicyRow) -> [String; 11] {
    let literal = |text: Option<&str>| text.map_or("NULL".to_owned(), |text| Literal(text).to_string());
    [
        row.premake.to_string(),
        literal(row.retention.as_deref()),
        literal(Some(&row.retention_action)),
        literal(row.archive_schema.as_ref().map(Ident::as_str)),
        literal(Some(&row.timezone)),
        row.retention_count
            .map_or("NULL".to_owned(), |count| count.to_string()),
        row.min_partitions.to_string(),
        literal(row.archive_format.as_deref()),
        literal(row.archive_function.as_deref()),
        literal(row.origin.as_deref()),
        match row.template.as_ref().and_then(|template| template.name.as_ref()) {
            Some(name) => format!("{}::pg_catalog.regclass", Literal(&name.to_string())),
            None => "NULL".into(),
        },
    ]
}

fn write(action: &str, statement: String, mode: Mode) -> Result<()> {
    let mut plan = Plan::default();
    plan.push(action, statement);
    with_own_tables(|| execute::run(&plan, mode))
}

/// A table that is partitioned by range: nothing else has partitions that come and go.
fn range_table(oid: Oid) -> Result<Partitioned> {
    match table::find_partitioned(oid)? {
        Some(table) if table.strategy == "r" => Ok(table),
        _ => Err(Error::NotRangePartitioned {
            relation: table::display(oid)?,
        }),
    }
}

/// # Errors
/// The first rule that cannot be kept.
fn check(parent: Oid, row: &PolicyRow) -> Result<()> {
    let bad = |argument: &str, reason: String, hint: &str| {
        Err(Error::BadArgument {
            argument: argument.into(),
            reason,
            hint: hint.into(),
        })
    };
    if !(0..=MAX_PREMAKE).contains(&row.premake) {
        return bad(
            "premake",
            format!("it is {}", row.premake),
            "Use a number from 0 to 1000.",
        );
    }
    for (argument, number) in [
        ("retention_count", row.retention_count.unwrap_or(1)),
        ("min_partitions", row.min_partitions),
    ] {
        if number < 1 {
            return bad(argument, format!("it is {number}"), "Use a number from 1 on.");
        }
    }
    // Refuses what is no time zone, with the server's own error.
    drop(table::pin(&row.timezone));
    let _settings = table::pin(table::zone_of(row)?);
    let managed = Managed::read(parent, row.clone(), None)?;
    let longest = row
        .base_name
        .with_suffix(&"x".repeat(managed.scheme.longest_suffix() + managed.longest_below()?));
    if longest.is_too_long() {
        return Err(Error::NameTooLong {
            name: longest.as_str().into(),
        });
    }
    if let Some(retention) = &row.retention {
        if !managed.scheme.key().is_time() {
            return bad(
                "retention",
                "an integer key has no age".into(),
                "Use retention_count: it keeps a number of partitions.",
            );
        }
        let positive: Option<bool> = spi::row(
            "SELECT pg_catalog.to_jsonb($1::interval > '0'::interval)",
            &[retention.as_str().into()],
        )?;
        if positive != Some(true) {
            return bad(
                "retention",
                format!("{retention} is not positive"),
                "Use an interval such as '24 months'.",
            );
        }
    }
    if RetentionAction::parse(&row.retention_action).is_none() {
        return bad(
            "retention_action",
            format!("it is \"{}\"", row.retention_action),
            "Use drop, detach or archive.",
        );
    }
    archive_place(&managed.table, row)
}

/// Archives go to a schema, to files, or where a function brings them.
fn archive_place(table: &Partitioned, row: &PolicyRow) -> Result<()> {
    let bad = |argument: &str, reason: String, hint: &str| {
        Err(Error::BadArgument {
            argument: argument.into(),
            reason,
            hint: hint.into(),
        })
    };
    match (&row.archive_schema, &row.archive_format, &row.archive_function) {
        (None, None, None) if row.retention_action == "archive" => bad(
            "archive_schema",
            "archive needs a place".into(),
            "Name archive_schema, archive_format or archive_function.",
        ),
        (None, None, None) => Ok(()),
        (Some(schema), None, None) => archive_schema(table, schema),
        (None, Some(format), None) if archive::Format::parse(format).is_some() => Ok(()),
        (None, Some(format), None) => bad(
            "archive_format",
            format!("it is \"{format}\""),
            "Use csv or parquet.",
        ),
        (None, None, Some(function)) => archive_function(table, function),
        _ => bad(
            "archive_schema",
            "archives go to one place".into(),
            "Name one of archive_schema, archive_format and archive_function.",
        ),
    }
}

/// The function takes a partition and gives a relation, and the owner of the table may call it.
fn archive_function(table: &Partitioned, function: &str) -> Result<()> {
    let fits: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(p.prokind = 'f' AND NOT p.proretset AND p.prorettype = 'regclass'::regtype
             AND p.proargtypes = '2205'::pg_catalog.oidvector
             AND pg_catalog.has_function_privilege($2, p.oid, 'EXECUTE'))
         FROM pg_catalog.pg_proc p WHERE p.oid = pg_catalog.to_regprocedure($1)::oid",
        &[function.into(), table.owner().into()],
    )?;
    if fits == Some(true) {
        return Ok(());
    }
    Err(Error::BadArgument {
        argument: "archive_function".into(),
        reason: format!(
            "{function} is no function from regclass to regclass that {} may call",
            table.owner_name
        ),
        hint:
            "Name a function that takes the partition and returns the relation by which its archive is read."
                .into(),
    })
}

/// The owner of the table must be able to create tables in the archive schema: partitions move there as theirs.
fn archive_schema(table: &Partitioned, schema: &Ident) -> Result<()> {
    let allowed: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.has_schema_privilege($2, n.oid, 'CREATE'))
         FROM pg_catalog.pg_namespace n WHERE n.nspname = $1",
        &[schema.as_str().into(), table.owner().into()],
    )?;
    let (reason, hint) = match allowed {
        Some(true) => return Ok(()),
        Some(false) => (
            format!("{} may not create tables in schema {schema}", table.owner_name),
            format!("Run GRANT CREATE ON SCHEMA {schema} TO {}.", table.owner_name),
        ),
        None => (
            format!("schema {schema} does not exist"),
            format!("Run CREATE SCHEMA {schema} first."),
        ),
    };
    Err(Error::BadArgument {
        argument: "archive_schema".into(),
        reason,
        hint,
    })
}
