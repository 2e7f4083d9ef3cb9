//! The one error type, and the one place that chooses SQLSTATE, and by [`texts`] message, DETAIL and HINT.
//!
//! Conditions that PostgreSQL itself knows keep its SQLSTATE (`42501`, `55P03`, …); those that only this
//! extension knows have the class `PR`. How they are raised is in [`raise`].

mod raise;
#[cfg(test)]
mod sqlstates;
mod texts;

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
