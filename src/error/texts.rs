//! What an error says, and what helps.

use super::*;

impl Error {
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

fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
