//! The settings `partition_router.*`: private statics, registered once, read through getters.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;
use std::time::Duration;

static USE_PARTITIONED_TABLES: GucSetting<bool> = GucSetting::<bool>::new(false);
static ENABLE_PARTITION_ROUTING: GucSetting<bool> = GucSetting::<bool>::new(true);
static TENANT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static TRANSPARENT: GucSetting<bool> = GucSetting::<bool>::new(false);
static SHADOW_SAMPLE: GucSetting<f64> = GucSetting::<f64>::new(0.0);
static LOG_PARTITION_ROUTING: GucSetting<bool> = GucSetting::<bool>::new(false);
static ENABLE_PARTITION_MAINTENANCE: GucSetting<bool> = GucSetting::<bool>::new(true);
static CARRY_DDL: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOCK_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(100);
static BACKFILL_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static VERIFY_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static NOTICE_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static VERIFY_INTERVAL_MINUTES: GucSetting<i32> = GucSetting::<i32>::new(1440);
static MAX_REPLICA_LAG_MS: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static MAX_SLOT_WAL_MB: GucSetting<i32> = GucSetting::<i32>::new(1024);
static MAINTENANCE_INTERVAL_SECONDS: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAINTENANCE_ROLE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static ARCHIVE_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static LAUNCHER_DATABASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"postgres"));

/// A year.
const LONGEST_MAINTENANCE_INTERVAL: i32 = 31_536_000;

/// Defines every setting. Called once, when the library is loaded.
pub fn init() {
    GucRegistry::define_bool_guc(
        c"partition_router.use_partitioned_tables",
        c"Reads use the partitioned twin where that is proven safe.",
        c"The routing switch, for a session, a transaction (SET LOCAL), a role or a database.",
        &USE_PARTITIONED_TABLES,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"partition_router.enable_partition_routing",
        c"Off: everything reads the legacy, whatever else is set.",
        c"The kill switch of routing.",
        &ENABLE_PARTITION_ROUTING,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"partition_router.tenant",
        c"The tenant that routing decides for when a call names none.",
        c"Set it with SET LOCAL at the start of a transaction.",
        &TENANT,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"partition_router.transparent",
        c"Plain SQL that names the legacy is routed, too, with no change to the application.",
        c"Off: only partition_router.route() says what to read.",
        &TRANSPARENT,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_float_guc(
        c"partition_router.shadow_sample",
        c"The share of routed reads that also run on the other side, to compare.",
        c"0 is none, 1 is all. What differs is in partition_router.shadow_reads.",
        &SHADOW_SAMPLE,
        0.0,
        1.0,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"partition_router.log_partition_routing",
        c"Writes a LOG line for each routing decision.",
        c"As in: [PartitionRouting] SELECT - revenues -> revenues_partitioned",
        &LOG_PARTITION_ROUTING,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"partition_router.enable_partition_maintenance",
        c"Off: maintenance does nothing, and says so.",
        c"It is run_maintenance() that does nothing; create_partitions() and other calls by hand go on.",
        &ENABLE_PARTITION_MAINTENANCE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"partition_router.carry_ddl",
        c"DDL on one side of a pair is carried to the other side, or refused.",
        c"Off: both sides may be changed one by one; writes fail while their columns differ.",
        &CARRY_DDL,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"partition_router.lock_timeout",
        c"How long a strong lock on a live table may be waited for before backing off.",
        c"The wait is retried after a pause, so that nobody queues behind it for longer than this.",
        &LOCK_TIMEOUT_MS,
        1,
        60_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"partition_router.backfill_workers",
        c"How many processes do a backfill: the calling session and background workers.",
        c"1 is the session alone. Workers come out of max_worker_processes; with fewer free there are fewer.",
        &BACKFILL_WORKERS,
        1,
        16,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"partition_router.verify_workers",
        c"How many processes do a verify: the calling session and background workers.",
        c"1 is the session alone. Workers come out of max_worker_processes; with fewer free there are fewer.",
        &VERIFY_WORKERS,
        1,
        16,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"partition_router.max_replica_lag",
        c"How far a replica may be behind before the view health warns.",
        c"Where there is none, there is nothing to warn of.",
        &MAX_REPLICA_LAG_MS,
        0,
        86_400_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"partition_router.notice_interval",
        c"How often a call that takes long says how far it is, and who is in its way.",
        c"0: at each step. -1: never. The view calls tells it at any time.",
        &NOTICE_INTERVAL_MS,
        -1,
        86_400_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"partition_router.max_slot_wal",
        c"How much log the server may keep for a replication slot before the view health warns.",
        c"",
        &MAX_SLOT_WAL_MB,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"partition_router.verify_interval",
        c"Maintenance verifies a pair whose last verify is older than this.",
        c"-1: maintenance verifies nothing. 0: it verifies at every run.",
        &VERIFY_INTERVAL_MINUTES,
        -1,
        525_600,
        GucContext::Userset,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_int_guc(
        c"partition_router.maintenance_interval",
        c"How often a background worker runs maintenance in this database.",
        c"0: never. Takes partition_router in shared_preload_libraries, and partition_router.maintenance_role.",
        &MAINTENANCE_INTERVAL_SECONDS,
        0,
        LONGEST_MAINTENANCE_INTERVAL,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"partition_router.maintenance_role",
        c"The role as which a background worker runs maintenance in this database; never a superuser.",
        c"It maintains the tables of the roles that it is a member of.",
        &MAINTENANCE_ROLE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"partition_router.archive_directory",
        c"The directory of the server that archives of partitions are written to.",
        c"An absolute path that the server's system user alone may write to. Empty: no files.",
        &ARCHIVE_DIRECTORY,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"partition_router.launcher_database",
        c"The database that the launcher of background workers connects to.",
        c"It reads there which databases want maintenance; the extension need not be in it.",
        &LAUNCHER_DATABASE,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

pub fn use_partitioned_tables() -> bool {
    USE_PARTITIONED_TABLES.get()
}

pub fn enable_partition_routing() -> bool {
    ENABLE_PARTITION_ROUTING.get()
}

/// The tenant set for this transaction; `None` when it is empty.
pub fn tenant() -> Option<String> {
    TENANT
        .get()
        .and_then(|t| t.into_string().ok())
        .filter(|t| !t.is_empty())
}

pub fn transparent() -> bool {
    TRANSPARENT.get()
}

/// From 0 to 1.
pub fn shadow_sample() -> f64 {
    SHADOW_SAMPLE.get()
}

pub fn log_partition_routing() -> bool {
    LOG_PARTITION_ROUTING.get()
}

pub fn enable_partition_maintenance() -> bool {
    ENABLE_PARTITION_MAINTENANCE.get()
}

pub fn carry_ddl() -> bool {
    CARRY_DDL.get()
}

pub fn lock_timeout() -> Duration {
    Duration::from_millis(LOCK_TIMEOUT_MS.get().max(1) as u64)
}

/// How many processes do a backfill, the calling session among them.
pub fn backfill_workers() -> usize {
    usize::try_from(BACKFILL_WORKERS.get()).unwrap_or(1).max(1)
}

/// How many processes do a verify, the calling session among them.
pub fn verify_workers() -> usize {
    usize::try_from(VERIFY_WORKERS.get()).unwrap_or(1).max(1)
}

/// How often a long call tells its client how far it is; none for never.
pub fn notice_interval() -> Option<Duration> {
    u64::try_from(NOTICE_INTERVAL_MS.get())
        .ok()
        .map(Duration::from_millis)
}

/// How old the last verify of a pair may be before maintenance verifies it again; none when it never does.
pub fn verify_interval() -> Option<Duration> {
    let minutes = u64::try_from(VERIFY_INTERVAL_MINUTES.get()).ok()?;
    Some(Duration::from_secs(60 * minutes))
}

/// How far a replica may be behind before `health` warns.
pub fn max_replica_lag() -> Duration {
    Duration::from_millis(u64::try_from(MAX_REPLICA_LAG_MS.get()).unwrap_or(0))
}

/// How many bytes of log may be kept for a replication slot before `health` warns.
pub fn max_slot_wal() -> u64 {
    u64::try_from(MAX_SLOT_WAL_MB.get()).unwrap_or(0) << 20
}

/// How often a background worker runs maintenance; zero is never.
pub fn maintenance_interval() -> Duration {
    Duration::from_secs(u64::try_from(MAINTENANCE_INTERVAL_SECONDS.get()).unwrap_or(0))
}

/// As [`maintenance_interval`], from the text that `ALTER DATABASE … SET` keeps.
pub fn parse_maintenance_interval(text: &str) -> Option<Duration> {
    let text = CString::new(text).ok()?;
    let mut seconds = 0;
    #[allow(unsafe_code)]
    // SAFETY: reads a text of ours into an integer of ours.
    let is_read = unsafe {
        pgrx::pg_sys::parse_int(
            text.as_ptr(),
            &mut seconds,
            pgrx::pg_sys::GUC_UNIT_S as i32,
            std::ptr::null_mut(),
        )
    };
    is_read.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// The role as which a background worker runs maintenance; empty when none is named.
pub fn maintenance_role() -> String {
    MAINTENANCE_ROLE
        .get()
        .and_then(|role| role.into_string().ok())
        .unwrap_or_default()
}

/// The directory of the archives; empty when there is none.
pub fn archive_directory() -> String {
    ARCHIVE_DIRECTORY
        .get()
        .and_then(|path| path.into_string().ok())
        .unwrap_or_default()
}

/// The database that the launcher connects to.
pub fn launcher_database() -> String {
    LAUNCHER_DATABASE
        .get()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}
