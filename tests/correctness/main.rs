//! Whatever the server can do to a row, the other side has it too. Each scene is played at every moment of a pair's
//! life: on the legacy while its rows are being copied, on either side of the live pair, and on the twin that has taken the name.

#[path = "../common/mod.rs"]
mod common;

mod both_sides;
mod cascades;
mod deferred;
mod leaves;
mod prepared;
mod rights;
mod savepoints;
mod shapes;
mod snapshots;
mod triggers;
mod values;

use common::{Database, assert_equal_sides, one, run};
use postgres::Client;
use std::time::{Duration, Instant};

/// When a scene is played, and on which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Changes are captured; the horizon of the copy is not fixed yet.
    Captured,
    /// The horizon is fixed; nothing is copied.
    Begun,
    /// A batch has read its rows and is not committed.
    Copying,
    /// Everything is copied; there are no indexes yet.
    Copied,
    /// The log was drained; the flip comes next.
    Drained,
    /// Live; the scene is played on the legacy.
    Legacy,
    /// Live; the scene is played on the twin.
    Twin,
    /// Switched; the scene is played on the twin, which has the legacy's name until the end.
    Switched,
}

impl At {
    pub const COPY: [At; 5] = [At::Captured, At::Begun, At::Copying, At::Copied, At::Drained];
    pub const LIVE: [At; 2] = [At::Legacy, At::Twin];

    pub fn is_live(self) -> bool {
        At::LIVE.contains(&self)
    }

    /// Whether the scene is played on the partitioned table.
    pub fn is_twin(self) -> bool {
        [At::Twin, At::Switched].contains(&self)
    }

    pub fn side(self) -> &'static str {
        if self == At::Twin { "a_partitioned" } else { "a" }
    }
}

/// A pair `a` and `a_partitioned` in a schema of its own.
pub struct Scene<'a> {
    pub database: &'a Database,
    pub schema: String,
    pub at: At,
    /// The session of the application.
    pub app: Client,
    /// The session that runs the backfill, and looks at the result.
    pub keeper: Client,
}

impl Scene<'_> {
    /// Runs statements of the application, `{}` for the side that the scene is played on.
    pub fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            let statement = statement.replace("{}", self.at.side());
            self.app
                .batch_execute(&statement)
                .unwrap_or_else(|error| panic!("at {:?}: {statement}: {error:?}", self.at));
        }
    }

    /// Runs statements in the session that looks at the result.
    pub fn keeper_run(&mut self, statements: &[&str]) {
        run(&mut self.keeper, statements);
    }

    /// The SQLSTATE with which a statement of the application fails.
    pub fn sqlstate(&mut self, statement: &str) -> String {
        common::sqlstate(&mut self.app, &statement.replace("{}", self.at.side()))
    }

    /// The only value of a query of the application.
    pub fn one<T: for<'b> postgres::types::FromSql<'b>>(&mut self, query: &str) -> T {
        one(&mut self.app, &query.replace("{}", self.at.side()))
    }

    /// Another session that finds the pair.
    pub fn session(&self) -> Client {
        session(self.database, &self.schema)
    }

    /// Ends the backfill and compares the sides row by row. Gives the number of rows.
    pub fn finish(&mut self) -> i64 {
        if self.at == At::Switched {
            run(&mut self.keeper, &["CALL partition_router.rollback('a')"]);
        } else if !self.at.is_live() {
            run(&mut self.keeper, &["CALL partition_router.backfill('a')"]);
            let phase = "SELECT phase FROM partition_router.pair WHERE legacy = 'a'::regclass";
            assert_eq!(one::<String>(&mut self.keeper, phase), "live", "at {:?}", self.at);
        }
        compare(&mut self.keeper, "a")
    }
}

fn session(database: &Database, schema: &str) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        &[&format!(
            "SET search_path = {schema}; SET deadlock_timeout = '50ms'"
        )],
    );
    client
}

/// Compares a table with its twin, row by row and column by column. Gives the number of rows.
pub fn compare(client: &mut Client, legacy: &str) -> i64 {
    let columns: String = one(
        client,
        &format!(
            "SELECT string_agg(quote_ident(attname) || '::text', ', ') FROM pg_attribute
             WHERE attrelid = '{legacy}'::regclass AND attnum > 0 AND NOT attisdropped"
        ),
    );
    assert_equal_sides(client, legacy, &format!("{legacy}_partitioned"), &columns);
    one(client, &format!("SELECT count(*) FROM {legacy}"))
}

/// The stage of the backfill of `a`, `begin` before its first step.
fn stage(client: &mut Client) -> String {
    one(
        client,
        "SELECT COALESCE((SELECT c.stage FROM partition_router.copy_state c
                          JOIN partition_router.pair p ON p.id = c.pair_id WHERE p.legacy = 'a'::regclass), 'begin')",
    )
}

const STEP: &str = "SELECT partition_router.backfill_step('a', 100)";

/// Goes on with the backfill of `a` until it is in this stage.
pub fn steps_until(client: &mut Client, wanted: &str) {
    for _ in 0..200 {
        if stage(client) == wanted {
            return;
        }
        assert!(one::<bool>(client, STEP), "the backfill ended before {wanted}");
    }
    panic!("the backfill never came to {wanted}");
}

/// Makes the table with `setup`, brings it to the moment `at`, plays the scene and finishes. What `play` gives is called
/// at the end, on the live pair.
pub fn at<Check: FnOnce(&mut Scene)>(
    database: &Database,
    at: At,
    setup: &[&str],
    arguments: &str,
    play: impl FnOnce(&mut Scene) -> Check,
) {
    let schema = format!("at_{at:?}").to_lowercase();
    let mut keeper = database.connect();
    run(
        &mut keeper,
        &[
            &format!("CREATE SCHEMA {schema}"),
            &format!("SET search_path = {schema}"),
        ],
    );
    run(&mut keeper, setup);
    if at.is_live() || at == At::Switched {
        run(
            &mut keeper,
            &[&format!("CALL partition_router.migrate('a', {arguments})")],
        );
    } else {
        run(
            &mut keeper,
            &[
                &format!("SELECT partition_router.create_twin('a', {arguments})"),
                "SELECT partition_router.start_sync('a')",
            ],
        );
    }
    match at {
        At::Begun => steps_until(&mut keeper, "copy"),
        At::Copying => {
            steps_until(&mut keeper, "copy");
            run(&mut keeper, &["BEGIN", STEP]);
        }
        At::Copied => steps_until(&mut keeper, "index"),
        At::Drained => steps_until(&mut keeper, "flip"),
        At::Switched => run(&mut keeper, &["CALL partition_router.switchover('a')"]),
        At::Captured | At::Legacy | At::Twin => {}
    }
    let mut scene = Scene {
        database,
        app: session(database, &schema),
        schema,
        at,
        keeper,
    };
    let check = play(&mut scene);
    if at == At::Copying {
        run(&mut scene.keeper, &["COMMIT"]);
    }
    scene.finish();
    check(&mut scene);
}

/// Plays a scene at every moment, each on tables of its own.
pub fn everywhere<Check: FnOnce(&mut Scene)>(
    test: &str,
    setup: &[&str],
    arguments: &str,
    play: impl Fn(&mut Scene) -> Check,
) {
    let database = Database::new(test);
    for moment in At::COPY.into_iter().chain(At::LIVE).chain([At::Switched]) {
        at(&database, moment, setup, arguments, &play);
    }
}

/// Plays a scene on either side of the live pair.
pub fn live<Check: FnOnce(&mut Scene)>(
    test: &str,
    setup: &[&str],
    arguments: &str,
    play: impl Fn(&mut Scene) -> Check,
) {
    let database = Database::new(test);
    for moment in At::LIVE {
        at(&database, moment, setup, arguments, &play);
    }
}

/// For a scene with nothing further to look at.
pub fn nothing_more(_: &mut Scene) {}

/// 100 rows over three months: `id`, `d`, `u` (unique with `d`), `n` and `t`.
pub const PLAIN: [&str; 2] = [
    "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, u int, n int, t text, UNIQUE (u, d))",
    "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g, g, 'row ' || g FROM generate_series(1, 100) g",
];

pub fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// Waits until `condition`, a query of one boolean, holds.
pub fn until(client: &mut Client, condition: &str) {
    let started = Instant::now();
    while !one::<bool>(client, condition) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "never came true: {condition}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The SQLSTATE of a statement, empty when it worked.
pub fn outcome(client: &mut Client, statement: &str) -> String {
    match client.batch_execute(statement) {
        Ok(()) => String::new(),
        Err(error) => error
            .as_db_error()
            .unwrap_or_else(|| panic!("{statement}: {error}"))
            .code()
            .code()
            .to_string(),
    }
}
