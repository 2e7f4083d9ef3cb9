//! Every SQLSTATE that the extension's own errors have, with its condition: what `docs/catalog.md` is written from.
//! The choice itself is in [`super::Error::sqlstate`]; a test holds both together.

pub const SQLSTATES: &[(&str, &str)] = &[
    ("PR001", "the table is temporary"),
    ("PR002", "the table is unlogged"),
    ("PR003", "the table is a system table"),
    ("PR004", "the table has no primary key"),
    ("PR005", "the partition key has NULLs"),
    (
        "PR006",
        "the column's type or collation cannot be such a partition key",
    ),
    ("PR007", "unknown strategy"),
    ("PR008", "the partition interval is none, or does not fit the key"),
    ("PR009", "more partitions than one call may make"),
    ("PR010", "the table belongs to a pair already"),
    ("PR011", "the table belongs to no pair"),
    (
        "PR012",
        "the call does not fit the phase; the HINT names the call that leads on",
    ),
    ("PR013", "the twin is not empty"),
    ("PR014", "both sides are not equal"),
    (
        "PR015",
        "a change could not be carried to the other side: the statement fails",
    ),
    ("PR016", "the table is not under maintenance"),
    ("PR017", "the table is under maintenance already"),
    ("PR018", "a table of the pair is gone"),
    (
        "PR019",
        "a DDL statement that cannot be carried to the other side of a pair",
    ),
    ("PR020", "a prepared transaction holds a lock on the table"),
    (
        "PR021",
        "objects that refer to the table would be lost; the DETAIL lists them",
    ),
    (
        "PR022",
        "a statement writes to the guard of unique columns, which follows its table",
    ),
    (
        "PR023",
        "a partition that cannot be placed on another server, or brought back; the DETAIL says why",
    ),
    (
        "PR050",
        "an archive does not hold what it was made of: nothing was dropped",
    ),
    ("PR070", "pg_cron is not in this database"),
    ("0A000", "this version cannot do or carry over that"),
    ("22004", "an argument is NULL that must not be"),
    ("22023", "an argument has a wrong value"),
    (
        "25006",
        "a call that changes something, on a standby or in a read-only transaction; the HINT names the primary",
    ),
    (
        "40001",
        "an UPDATE or DELETE of the twin in a transaction whose snapshot is older than the copy: run it again",
    ),
    (
        "42501",
        "the caller does not own the table, or what has to follow it; or may not make objects in its schema; or may not read the keys of a change feed; or a function of a user would run with more rights than his",
    ),
    ("42622", "a name would be longer than 63 bytes"),
    ("42703", "no such column"),
    (
        "42809",
        "no ordinary table: a view, a partition, partitioned already, inherited; or not partitioned by range",
    ),
    ("42P01", "there is no such relation"),
    (
        "42P07",
        "the name of the twin, of a partition, of the legacy after a switchover or of a guard is taken",
    ),
    ("53100", "the disk is full"),
    ("53400", "no background worker could be started, or it was ended"),
    ("55000", "the partition is in use"),
    ("55006", "another call changes the pair"),
    (
        "55P03",
        "a lock was not to be had, the DETAIL says who has it; another session maintains the table; or a snapshot is older than the copy",
    ),
    ("58030", "an error with a file of an archive"),
    ("58P01", "a file or the archive directory is not there"),
    (
        "XX000",
        "the catalog holds what it never should: please report it",
    ),
];
