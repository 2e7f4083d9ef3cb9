//! The one error type, and the one place that chooses SQLSTATE, message, DETAIL and HINT.
//!
//! Conditions that PostgreSQL itself knows keep its SQLSTATE (`42501`, `55P03`, …); those that only this
//! extension knows have the class `PR`. How they are raised is in [`raise`].

mod raise;
#[cfg(test)]
mod sqlstates;

pub use raise::{Constraint, Remote, Said, decode, explaining, init, keeping_sqlstate, report};

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a call. Each variant has its own SQLSTATE.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// The relation is no ordinary table (a view, a partition, a temporary table, …).
    NotAnOrdinaryTable {
        relation: String,
        reason: String,
    },
    /// The relation is no materialized view.
    NotAMaterializedView {
        relation: String,
    },
    TemporaryTable {
        relation: String,
    },
    UnloggedTable {
        relation: String,
    },
    SystemTable {
        relation: String,
    },
    NoPrimaryKey {
        relation: String,
    },
    NullPartitionKey {
        relation: String,
        column: String,
        rows: i64,
    },
    UnknownColumn {
        relation: String,
        column: String,
    },
    UnsuitableKey {
        column: String,
        type_name: String,
        strategy: String,
    },
    /// Text that is not compared byte by byte, as a key of ranges.
    UnsuitableCollation {
        column: String,
        collation: String,
    },
    BadStrategy {
        strategy: String,
    },
    BadInterval {
        interval: String,
        reason: String,
    },
    BadArgument {
        argument: String,
        reason: String,
        hint: String,
    },
    NullArgument {
        argument: String,
    },
    UnknownRelation {
        oid: u32,
    },
    TooManyPartitions {
        wanted: String,
        limit: usize,
        value: String,
    },
    NameTooLong {
        name: String,
    },
    /// A function of a user was about to run with the rights of a superuser.
    UsersCode {
        function: String,
    },
    AlreadyExists {
        name: String,
    },
    NotOwner {
        relation: String,
    },
    /// Changes are told to who may read the keys.
    FeedOfOthers {
        feed: Option<String>,
    },
    /// The trigger of a change feed says by a number whose feed it writes to.
    TriggerOfFeed {
        trigger: String,
    },
    /// The relation already belongs to a pair.
    AlreadyPaired {
        relation: String,
        phase: String,
    },
    /// The relation belongs to no pair.
    NotPaired {
        relation: String,
    },
    /// The relation is partitioned but nobody manages it.
    NotManaged {
        relation: String,
    },
    /// The other side of the pair was dropped by hand.
    SideGone {
        relation: String,
    },
    /// The call does not fit the phase; `next` is the call that leads on.
    WrongPhase {
        relation: String,
        phase: String,
        call: String,
        next: String,
    },
    TwinNotEmpty {
        twin: String,
    },
    NotEqual {
        relation: String,
        partitions: usize,
        rows: i64,
    },
    /// A lock was not to be had within `partition_router.lock_timeout`, retries included.
    LockNotAvailable {
        relation: String,
        /// Where it is known.
        mode: Option<&'static str>,
        attempts: usize,
        blockers: String,
    },
    /// Another session runs the same operation on the same pair.
    Busy {
        relation: String,
        operation: String,
    },
    /// The relation is under maintenance already.
    AlreadyManaged {
        relation: String,
    },
    /// The relation has no ranges that come and go.
    NotRangePartitioned {
        relation: String,
    },
    /// The relation has no partitions at all.
    NotPartitioned {
        relation: String,
    },
    /// Another session maintains the same table.
    MaintenanceRunning {
        relation: String,
    },
    /// The transaction's snapshot is older than the moment at which the pair went live.
    OldSnapshot {
        relation: String,
    },
    /// A prepared transaction holds a lock that has to be waited for.
    PreparedTransaction {
        relation: String,
        transactions: String,
    },
    /// Objects that refer to a table and could not follow its name, or would go with it.
    WouldBeLost {
        relation: String,
        objects: Vec<String>,
    },
    /// A statement writes to a guard, which follows its table.
    GuardWritten {
        guard: String,
        table: String,
    },
    /// The name that a table is to be given is taken.
    NameTaken {
        name: String,
        relation: String,
    },
    /// The caller may not make objects in the schema.
    NoCreate {
        schema: String,
    },
    /// A transaction's snapshot is older than the rows that the backfill copied.
    SnapshotInTheWay {
        relation: String,
        sessions: String,
    },
    /// Something that this version cannot carry over or do.
    Unsupported {
        what: String,
        hint: String,
    },
    /// A change could not be carried to the other side.
    Sync {
        relation: String,
        reason: String,
        hint: String,
    },
    /// A DDL statement that cannot be carried to the other side of a pair.
    NotCarried {
        what: String,
        reason: String,
        hint: String,
    },
    PartitionInUse {
        partition: String,
        reason: String,
        hint: String,
    },
    /// No background worker could be started, or the one that was has ended.
    NoWorker {
        reason: String,
        hint: String,
    },
    /// There is no pg_cron in this database.
    SchedulerMissing {
        database: String,
        hint: String,
    },
    /// A file of the server could not be worked with.
    File {
        action: String,
        name: String,
        reason: String,
        sqlstate: &'static str,
    },
    /// An archive does not hold the rows that it was made of.
    ArchiveDiffers {
        archive: String,
        reason: String,
    },
    /// The catalog or the extension's tables hold what they never should.
    /// A partition that has no place on another server.
    NotPlaced {
        partition: String,
        reason: String,
        hint: String,
    },
    /// A call that changes something, where nothing can be written.
    ReadOnly {
        call: String,
        /// The server is a standby; `primary` is where it has its log from, as far as it knows.
        standby: bool,
        primary: Option<String>,
    },
    Internal(String),
}

impl Error {
    /// The SQLSTATE: PostgreSQL's own where it has one for the condition, else of class `PR`.
    pub fn sqlstate(&self) -> &'static str {
        use Error::*;
        match self {
            NotAnOrdinaryTable { .. }
            | NotRangePartitioned { .. }
            | NotPartitioned { .. }
            | NotAMaterializedView { .. } => "42809",
            TemporaryTable { .. } => "PR001",
            UnloggedTable { .. } => "PR002",
            SystemTable { .. } => "PR003",
            NoPrimaryKey { .. } => "PR004",
            NullPartitionKey { .. } => "PR005",
            UnsuitableKey { .. } | UnsuitableCollation { .. } => "PR006",
            BadStrategy { .. } => "PR007",
            BadInterval { .. } => "PR008",
            TooManyPartitions { .. } => "PR009",
            AlreadyPaired { .. } => "PR010",
            NotPaired { .. } => "PR011",
            SideGone { .. } => "PR018",
            WrongPhase { .. } => "PR012",
            OldSnapshot { .. } => "40001",
            TwinNotEmpty { .. } => "PR013",
            NotEqual { .. } => "PR014",
            Sync { .. } => "PR015",
            NotManaged { .. } => "PR016",
            NotCarried { .. } => "PR019",
            PreparedTransaction { .. } => "PR020",
            WouldBeLost { .. } => "PR021",
            GuardWritten { .. } => "PR022",
            NotPlaced { .. } => "PR023",
            SchedulerMissing { .. } => "PR070",
            ArchiveDiffers { .. } => "PR050",
            File { sqlstate, .. } => sqlstate,
            NoWorker { .. } => "53400",
            PartitionInUse { .. } => "55000",
            AlreadyManaged { .. } => "PR017",
            UnknownColumn { .. } => "42703",
            BadArgument { .. } => "22023",
            NullArgument { .. } => "22004",
            UnknownRelation { .. } => "42P01",
            NameTooLong { .. } => "42622",
            AlreadyExists { .. } | NameTaken { .. } => "42P07",
            NotOwner { .. }
            | NoCreate { .. }
            | UsersCode { .. }
            | FeedOfOthers { .. }
            | TriggerOfFeed { .. } => "42501",
            LockNotAvailable { .. } | MaintenanceRunning { .. } | SnapshotInTheWay { .. } => "55P03",
            Busy { .. } => "55006",
            Unsupported { .. } => "0A000",
            ReadOnly { .. } => "25006",
            Internal(_) => "XX000",
        }
    }

    /// The primary message: short, lower case, no full stop.
    pub fn message(&self) -> String {
        use Error::*;
        match self {
            NotAnOrdinaryTable { relation, .. } => format!("{relation} is not an ordinary table"),
            NotAMaterializedView { relation } => format!("{relation} is not a materialized view"),
            TemporaryTable { relation } => format!("{relation} is a temporary table"),
            UnloggedTable { relation } => format!("{relation} is an unlogged table"),
            SystemTable { relation } => format!("{relation} is a system table"),
            NoPrimaryKey { relation } => format!("{relation} has no primary key"),
            NullPartitionKey { relation, column, .. } => {
                format!("partition key \"{column}\" of {relation} has null values")
            }
            UnknownColumn { relation, column } => format!("column \"{column}\" of {relation} does not exist"),
            UnsuitableKey {
                column,
                type_name,
                strategy,
            } => {
                format!("column \"{column}\" of type {type_name} cannot be a {strategy} partition key")
            }
            UnsuitableCollation { column, collation } => {
                format!("column \"{column}\" of collation {collation} cannot be a range partition key")
            }
            BadStrategy { strategy } => format!("unknown partition strategy \"{strategy}\""),
            BadInterval { interval, .. } => format!("invalid partition interval \"{interval}\""),
            BadArgument { argument, .. } => format!("invalid value for \"{argument}\""),
            NullArgument { argument } => format!("\"{argument}\" must not be null"),
            UnknownRelation { oid } => format!("relation with oid {oid} does not exist"),
            TooManyPartitions { wanted, .. } => format!("too many partitions: {wanted}"),
            UsersCode { function } => {
                format!("function {function} must not run with the rights of a superuser")
            }
            NameTooLong { name } => format!("name \"{name}\" is longer than 63 bytes"),
            AlreadyExists { name } => format!("relation {name} already exists"),
            NotOwner { relation } => format!("must be owner of {relation}"),
            FeedOfOthers { feed: Some(feed) } => format!("permission denied for change feed \"{feed}\""),
            FeedOfOthers { feed: None } => "permission denied for every change feed".into(),
            TriggerOfFeed { trigger } => format!("cannot create trigger {trigger} of a change feed"),
            AlreadyPaired { relation, .. } => format!("{relation} already belongs to a pair"),
            NotPaired { relation } => format!("{relation} belongs to no pair"),
            SideGone { relation } => format!("the other side of {relation} was dropped"),
            NotManaged { relation } => format!("{relation} is not under maintenance"),
            AlreadyManaged { relation } => format!("{relation} is already under maintenance"),
            NotRangePartitioned { relation } => format!("{relation} is not partitioned by range"),
            NotPartitioned { relation } => format!("{relation} is not a partitioned table"),
            MaintenanceRunning { relation } => format!("another session maintains {relation}"),
            WrongPhase {
                relation,
                phase,
                call,
                ..
            } => {
                format!("cannot {call} {relation} in phase \"{phase}\"")
            }
            OldSnapshot { relation } => {
                format!("could not serialize access to {relation}, which was filled after the snapshot")
            }
            TwinNotEmpty { twin } => format!("twin {twin} is not empty"),
            NotEqual { relation, .. } => format!("{relation} and its other side are not equal"),
            LockNotAvailable { relation, mode, .. } => {
                let mode = mode.map_or_else(String::new, |mode| format!(" in mode {mode}"));
                format!("could not lock {relation}{mode}")
            }
            PreparedTransaction { relation, .. } => {
                format!("a prepared transaction holds a lock on {relation}")
            }
            WouldBeLost { relation, .. } => format!("objects that refer to {relation} would be lost"),
            GuardWritten { guard, .. } => format!("cannot write to {guard}"),
            NameTaken { name, .. } => format!("name {name} is taken"),
            NoCreate { schema } => format!("permission denied for schema {schema}"),
            SnapshotInTheWay { relation, .. } => {
                format!("a transaction is older than the copy of {relation}")
            }
            Busy { relation, operation } => format!("{operation} of {relation} is already running"),
            Unsupported { what, .. } => what.clone(),
            Sync { relation, .. } => format!("could not carry the change of {relation} to its other side"),
            NotCarried { what, .. } => format!("cannot {what}"),
            PartitionInUse { partition, .. } => format!("partition {partition} cannot be removed"),
            SchedulerMissing { database, .. } => {
                format!("pg_cron is not installed in database \"{database}\"")
            }
            NoWorker { .. } => "no background worker does the work".into(),
            // The log of maintenance has the message alone.
            File {
                action, name, reason, ..
            } => format!("could not {action} archive \"{name}\": {reason}"),
            ArchiveDiffers { archive, reason } => {
                format!("archive {archive} does not hold what it was made of: {reason}")
            }
            NotPlaced { partition, .. } => format!("cannot place {partition}"),
            ReadOnly { call, standby, .. } => match standby {
                true => format!("cannot execute {call} on a standby"),
                false => format!("cannot execute {call} in a read-only transaction"),
            },
            Internal(what) => format!("partition_router: {what}"),
        }
    }

    pub fn detail(&self) -> Option<String> {
        use Error::*;
        match self {
            NotAnOrdinaryTable { reason, .. }
            | BadInterval { reason, .. }
            | BadArgument { reason, .. }
            | Sync { reason, .. }
            | NotCarried { reason, .. }
            | NoWorker { reason, .. }
            | PartitionInUse { reason, .. }
            | NotPlaced { reason, .. } => Some(format!("{}.", capitalise(reason))),
            NullPartitionKey { rows, .. } => Some(format!("Rows with a null key: {rows}.")),
            TooManyPartitions { limit, value, .. } => {
                Some(format!("The limit is {limit}; the outermost value is {value}."))
            }
            NameTooLong { name } => Some(format!("It has {} bytes.", name.len())),
            AlreadyPaired { phase, .. } => Some(format!("The pair is in phase \"{phase}\".")),
            NotEqual { partitions, rows, .. } => Some(format!(
                "Partitions that differ: {partitions}; difference in rows: {rows}."
            )),
            LockNotAvailable {
                attempts, blockers, ..
            } => Some(format!("Attempts: {attempts}. Blocked by: {blockers}.")),
            PreparedTransaction { transactions, .. } => {
                Some(format!("Prepared transactions: {transactions}."))
            }
            WouldBeLost { objects, .. } => Some(format!("{}.", capitalise(&objects.join("; ")))),
            NameTaken { relation, .. } => Some(format!(
                "{relation} makes room for the other side under that name."
            )),
            GuardWritten { guard, table } => Some(format!(
                "{guard} keeps the unique columns of {table} and follows its rows."
            )),
            SnapshotInTheWay { sessions, .. } => Some(format!("Sessions: {sessions}.")),
            ReadOnly {
                standby: true,
                primary,
                ..
            } => Some(match primary {
                Some(primary) => format!("The call changes something, and this server follows {primary}."),
                None => "The call changes something, and this server is in recovery.".into(),
            }),
            OldSnapshot { .. } => {
                Some("The transaction's snapshot does not see the rows that the backfill copied.".into())
            }
            _ => None,
        }
    }

    /// What to do about it, as a whole sentence.
    pub fn hint(&self) -> Option<String> {
        use Error::*;
        let hint = match self {
            NotAnOrdinaryTable { .. } => "Name an ordinary, permanent table that is not a partition itself.".into(),
            NotAMaterializedView { .. } => "Name a materialized view; views take CREATE OR REPLACE VIEW.".into(),
            TemporaryTable { .. } => "Only permanent tables can be migrated.".into(),
            UnloggedTable { .. } => "Run ALTER TABLE … SET LOGGED first.".into(),
            SystemTable { .. } => "Name a table of your own schema.".into(),
            NoPrimaryKey { .. } => "Add a primary key: sync and parity identify rows by it.".into(),
            NullPartitionKey { .. } => "Give these rows a value and set the column NOT NULL.".into(),
            UnknownColumn { .. } => "Name a column of the table as partition key.".into(),
            NullArgument { .. } => "Give it a value, or leave it out where it has a default.".into(),
            UnknownRelation { .. } => "It may have been dropped; name the table that is there now.".into(),
            UnsuitableKey { .. } => {
                "RANGE takes date, timestamp, timestamptz, integer or uuid (version 7) columns, and text of collation \"C\" that holds ULIDs; HASH and LIST take any column with a btree and hash operator class.".into()
            }
            UnsuitableCollation { column, .. } => format!(
                "Run ALTER TABLE … ALTER COLUMN \"{column}\" TYPE … COLLATE \"C\" first: only byte by byte are ULIDs in the order of time."
            ),
            BadStrategy { .. } => "Use range, hash or list.".into(),
            BadInterval { .. } => {
                "Use an interval such as '1 month', '3 months', '1 day' for times, or a whole number for integers.".into()
            }
            BadArgument { hint, .. } | Unsupported { hint, .. } | Sync { hint, .. } | NotCarried { hint, .. }
            | PartitionInUse { hint, .. } | NotPlaced { hint, .. } | SchedulerMissing { hint, .. } | NoWorker { hint, .. } => {
                hint.clone()
            }
            TooManyPartitions { .. } => "Correct outlying rows, or choose a longer interval.".into(),
            UsersCode { .. } => "Drop or change what calls it while a statement is parsed or planned: a constant of a domain, an index of constants.".into(),
            NameTooLong { .. } => "Choose a shorter name, for the twin with the argument twin.".into(),
            AlreadyExists { .. } => "Rename or drop it, or choose another name for the twin.".into(),
            NotOwner { .. } => "Run the call as the table's owner.".into(),
            FeedOfOthers { .. } => "Grant SELECT on the key columns of a table of the feed; where it has row security, who takes its changes must be its owner, or have BYPASSRLS.".into(),
            TriggerOfFeed { .. } => "Let partition_router.enable_change_feed() make it.".into(),
            AlreadyPaired { phase, .. } if phase == "prepared" => {
                "Go on with partition_router.start_sync(), or go back with partition_router.abandon().".into()
            }
            AlreadyPaired { .. } => {
                "See partition_router.status; partition_router.abandon() goes back to the legacy alone.".into()
            }
            NotPaired { .. } => "Create its twin with partition_router.migrate() or partition_router.create_twin().".into(),
            AlreadyManaged { .. } => "Change its policy with partition_router.set_policy().".into(),
            NotRangePartitioned { .. } => {
                "Name a table made with PARTITION BY RANGE: only its partitions come and go.".into()
            }
            NotPartitioned { .. } => "Name a table made with PARTITION BY.".into(),
            MaintenanceRunning { .. } => "Wait until the other session has finished.".into(),
            SideGone { .. } => {
                "Let the pair go with partition_router.abandon(): it drops no table then.".into()
            }
            NotManaged { .. } => "Put it under maintenance with partition_router.manage().".into(),
            WrongPhase { next, .. } => format!("Call {next}."),
            PreparedTransaction { .. } => "End them with COMMIT PREPARED or ROLLBACK PREPARED.".into(),
            WouldBeLost { .. } => "Drop or change these objects, and make them again afterwards.".into(),
            GuardWritten { table, .. } => format!("Write to {table}."),
            NameTaken { .. } => "Rename or drop what has the name.".into(),
            NoCreate { .. } => "Grant the caller CREATE on the schema: renaming a table asks for it.".into(),
            SnapshotInTheWay { .. } => "Call again when they have ended.".into(),
            OldSnapshot { .. } => "Run the transaction again, or write to the legacy table.".into(),
            TwinNotEmpty { .. } => "Empty the twin, or start again with partition_router.abandon().".into(),
            NotEqual { .. } => "See partition_router.mismatches() and run partition_router.repair().".into(),
            LockNotAvailable { .. } => {
                "Try again when the blocking transaction has ended, or raise partition_router.lock_timeout.".into()
            }
            Busy { .. } => "Wait for the other session, or see partition_router.progress.".into(),
            File { .. } => {
                "See the server's log and partition_router.archive_directory; nothing was dropped.".into()
            }
            ArchiveDiffers { .. } => {
                "Keep the table and the archive, and look for what changes the file; nothing was dropped.".into()
            }
            ReadOnly {
                standby: true,
                primary: Some(primary),
                ..
            } => format!("Call it on the primary, {primary}: what it does gets here by replication."),
            ReadOnly { standby: true, .. } => {
                "Call it on the primary, or here after pg_promote().".into()
            }
            ReadOnly { .. } => "Call it in a transaction that may write: see default_transaction_read_only.".into(),
            Internal(_) => "Please report this with the server's log.".into(),
        };
        Some(hint)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Error {}

impl From<pgrx::spi::Error> for Error {
    fn from(error: pgrx::spi::Error) -> Self {
        Error::Internal(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Internal(error.to_string())
    }
}

fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_short_and_every_hint_is_a_sentence() {
        let error = Error::NoPrimaryKey {
            relation: "public.t".into(),
        };
        assert!(error.message().chars().next().is_some_and(char::is_lowercase));
        assert!(error.hint().is_some_and(|h| h.ends_with('.')));
    }

    /// The codes that the sources choose, and those that the pages list.
    #[test]
    fn every_sqlstate_that_is_chosen_is_listed_and_every_listed_one_is_chosen() {
        let is_code = |text: &str| {
            text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        };
        let mut chosen: Vec<&str> = include_str!("error.rs")
            .lines()
            .filter_map(|line| line.split_once("=> \"").map(|(_, rest)| rest))
            .chain(include_str!("archive/place.rs").split("=> \"").skip(1))
            .filter_map(|rest| rest.split('"').next())
            .filter(|code| is_code(code))
            .collect();
        chosen.sort_unstable();
        chosen.dedup();
        let mut listed: Vec<&str> = sqlstates::SQLSTATES.iter().map(|(code, _)| *code).collect();
        assert!(listed.iter().all(|code| is_code(code)), "{listed:?}");
        listed.sort_unstable();
        assert_eq!(chosen, listed);
    }
}
