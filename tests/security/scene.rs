//! A table owner who plants code wherever the server evaluates some: defaults, constraints, indexes, policies, triggers,
//! domains that are parsed, casts that `to_jsonb` looks for. Each place logs who it runs as, to the server's log, which no
//! rollback empties, and tries to become somebody who may more.

use crate::common::{Cluster, Database, one, run};
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What each place does: it logs who it runs as, and what it gained by trying to become more. Each attempt is undone, so that the next
/// one is told apart. What it leaves behind is not: a cursor that would run when the transaction commits, a `search_path`, and what
/// was tried. As settings of the owner go when his part ends, each place tries once in each part. In his own session he has all he had.
const SAY: &str = "CREATE FUNCTION evil.say(place text) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        who name := current_user;
        session name := session_user;
        attempt text;
        gained text := '';
        tried text := COALESCE(pg_catalog.current_setting('evil.tried', true), '');
    BEGIN
        IF session OPERATOR(pg_catalog.=) 'mallory' OR pg_catalog.strpos(tried, place) OPERATOR(pg_catalog.>) 0 THEN
            RAISE LOG 'MARK|%|%|%||', place, who, session;
            RETURN;
        END IF;
        FOREACH attempt IN ARRAY ARRAY[
            'RESET ROLE', 'SET ROLE NONE', 'SET ROLE postgres', 'SET LOCAL ROLE postgres',
            'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION DEFAULT',
            'SELECT pg_catalog.set_config(''role'', ''postgres'', false)',
            'SELECT pg_catalog.set_config(''role'', ''none'', true)',
            'SELECT pg_catalog.set_config(''session_authorization'', ''postgres'', false)',
            'DO ''BEGIN RESET ROLE; END''',
            'DO ''BEGIN BEGIN SET ROLE postgres; EXCEPTION WHEN OTHERS THEN RESET ROLE; END; END''',
            'ALTER ROLE mallory SUPERUSER', 'GRANT postgres TO mallory',
            'CREATE TEMP TABLE evil_left (n int)', 'LISTEN evil', 'DISCARD TEMP']
        LOOP
            BEGIN
                EXECUTE attempt;
                gained := pg_catalog.concat_ws(' ', gained, attempt, 'made it', current_user, ';');
                RAISE EXCEPTION 'undone';
            EXCEPTION WHEN OTHERS THEN NULL; END;
        END LOOP;
        BEGIN
            EXECUTE 'DECLARE evil_held CURSOR WITH HOLD FOR SELECT evil.held()';
        EXCEPTION WHEN OTHERS THEN NULL; END;
        PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog', false), pg_catalog.set_config('evil.tried', pg_catalog.concat(tried, place, ' '), false);
        RAISE LOG 'MARK|%|%|%|%|', place, who, session, gained;
    END$$";

/// Places that log themselves. `mallory` owns them all.
const PLACES: &[&str] = &[
    SAY,
    "CREATE FUNCTION evil.held() RETURNS int LANGUAGE plpgsql AS
         $$BEGIN RAISE LOG 'MARK|cursor that is held|%|%||', current_user, session_user; RETURN 1; END$$",
    "CREATE FUNCTION evil.ok(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN PERFORM evil.say(place); RETURN true; END$$",
    "CREATE FUNCTION evil.num(place text, value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN PERFORM evil.say(place); RETURN value; END$$",
    "CREATE FUNCTION evil.next(place text) RETURNS int LANGUAGE plpgsql AS
         $$BEGIN PERFORM evil.say(place); RETURN pg_catalog.nextval('evil.numbers'); END$$",
    "CREATE FUNCTION evil.fired() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN PERFORM evil.say(pg_catalog.concat_ws(' ', 'trigger', TG_WHEN, TG_OP)); RETURN COALESCE(NEW, OLD); END$$",
    "CREATE SEQUENCE evil.numbers START 1000",
    "CREATE DOMAIN evil.digit AS int CHECK (evil.ok('domain'))",
    "CREATE TYPE evil.mood AS ENUM ('sad', 'happy')",
    "CREATE FUNCTION evil.to_json(evil.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN PERFORM evil.say('cast to json'); RETURN '1'; END$$",
    "CREATE FUNCTION evil.to_text(evil.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN PERFORM evil.say('cast to text'); RETURN 'x'; END$$",
    "CREATE CAST (evil.mood AS json) WITH FUNCTION evil.to_json(evil.mood)",
    "CREATE CAST (evil.mood AS text) WITH FUNCTION evil.to_text(evil.mood) AS ASSIGNMENT",
    "CREATE CAST (evil.mood AS jsonb) WITH INOUT AS ASSIGNMENT",
    // Whoever looks for operators where a place left the search_path finds these. The owner himself may.
    "CREATE FUNCTION evil.same(oid, oid) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN IF current_user OPERATOR(pg_catalog.<>) 'mallory' THEN PERFORM evil.say('oid ='); END IF; RETURN $1 OPERATOR(pg_catalog.=) $2; END$$",
    "CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN IF current_user OPERATOR(pg_catalog.<>) 'mallory' THEN PERFORM evil.say('text ='); END IF; RETURN $1 OPERATOR(pg_catalog.=) $2; END$$",
    "CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.same)",
    "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same)",
];

/// Columns whose every part is a place. A constant array of a domain is checked as soon as it is parsed; a function of
/// constants alone runs as soon as somebody plans.
const COLUMNS: &str = "
    id int NOT NULL DEFAULT evil.next('default'),
    at date NOT NULL,
    digit evil.digit DEFAULT 1,
    digits evil.digit[] DEFAULT '{1}'::evil.digit[],
    mood evil.mood DEFAULT 'sad',
    n int CONSTRAINT n_vetted CHECK (evil.num('check', n) > 0),
    folded int CONSTRAINT folded_vetted CHECK (evil.num('check of constants', 1) > 0),
    parsed int CONSTRAINT parsed_vetted CHECK (parsed = 0 OR '{2}'::evil.digit[] IS NOT NULL),
    made int GENERATED ALWAYS AS (evil.num('generated', n)) STORED";

/// What else is planted on a table, here `{t}`.
const TRAPS: &[&str] = &[
    "CREATE INDEX ON {t} (evil.num('index', n))",
    "CREATE INDEX ON {t} (evil.num('index of constants', 1))",
    "CREATE INDEX ON {t} (n) WHERE evil.ok('predicate of constants') AND evil.num('predicate', n) > 0",
    "CREATE INDEX ON {t} (n) WHERE '{3}'::evil.digit[] IS NOT NULL",
    "CREATE STATISTICS evil.{s} ON (evil.num('statistics', n)), at FROM {t}",
    "CREATE POLICY p ON {t} USING (evil.num('policy', n) > 0 AND '{4}'::evil.digit[] IS NOT NULL)",
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} FORCE ROW LEVEL SECURITY",
    "CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION evil.fired()",
    "CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW
         WHEN (pg_trigger_depth() >= 0 AND evil.ok('trigger condition')) EXECUTE FUNCTION evil.fired()",
    "ALTER TABLE {t} ENABLE ALWAYS TRIGGER b",
    "ALTER TABLE {t} ENABLE ALWAYS TRIGGER a",
    "CREATE VIEW evil.{s}_view AS SELECT id, n, evil.num('view', 1) AS one FROM {t}",
    "CREATE MATERIALIZED VIEW evil.{s}_kept AS SELECT id, evil.num('materialized view', 1) AS one FROM {t}",
];

const ROWS: &str = "INSERT INTO {t} (id, at, n, parsed) SELECT g, current_date - 300 + 10 * g, g, 0 FROM generate_series(1, 12) g";

pub struct Scene {
    pub database: Database,
    mallory: String,
    /// How much of the log was read.
    read: u64,
    /// Who each place ran as in each call, and what it gained.
    seen: BTreeMap<(String, String, String, String), u64>,
}

impl Scene {
    pub fn new(test: &str, settings: &[&str]) -> Scene {
        let settings = [settings, &["log_error_verbosity=terse"]].concat();
        let cluster = Arc::new(Cluster::start(&settings));
        let database = Database::on(cluster, test);
        let mut postgres = database.connect();
        run(
            &mut postgres,
            &[
                "CREATE ROLE mallory LOGIN",
                "CREATE SCHEMA evil AUTHORIZATION mallory",
            ],
        );
        let mut scene = Scene {
            database,
            mallory: "mallory".into(),
            read: 0,
            seen: BTreeMap::new(),
        };
        let mut mallory = scene.database.connect_as("mallory");
        run(&mut mallory, PLACES);
        scene.read = scene.log().1;
        scene
    }

    /// A table with all traps, its rows in it. `how` follows the columns.
    pub fn plant(&self, name: &str, how: &str, more: &[&str]) {
        let mut mallory = self.database.connect_as(&self.mallory);
        let table = format!("evil.{name}");
        run(
            &mut mallory,
            &[&format!("CREATE TABLE {table} ({COLUMNS}, {how}")],
        );
        for statement in more.iter().chain(TRAPS).chain([&ROWS]) {
            let statement = statement.replace("{t}", &table).replace("{s}", name);
            run(&mut mallory, &[&statement]);
        }
    }

    /// The log from where it was read, and its length.
    fn log(&self) -> (String, u64) {
        let place = std::fs::read_to_string(format!("{}/where", self.database.cluster.directory()))
            .expect("the cluster's place");
        let log = std::fs::read(format!("{}/log", place.trim())).expect("the log is readable");
        let new = &log[self.read as usize..];
        (String::from_utf8_lossy(new).into_owned(), log.len() as u64)
    }

    /// Forgets what was logged: the owner's own doing.
    pub fn forget(&mut self) {
        self.read = self.log().1;
    }

    /// Runs a call, and notes who its places ran as, and what they left behind in the session.
    pub fn call(&mut self, client: &mut Client, statement: &str) {
        const SETTINGS: &str =
            "SELECT pg_catalog.concat_ws(' ', session_user, pg_catalog.current_setting('search_path'),
            COALESCE(pg_catalog.current_setting('evil.tried', true), ''))";
        let before: String = one(client, SETTINGS);
        run(client, &[statement]);
        let after: String = one(client, SETTINGS);
        // The owner may do in his own session what he likes.
        if before != after && !before.starts_with(&self.mallory) {
            self.count(statement, "settings left behind", &after, "");
        }
        self.note(statement);
    }

    pub fn note(&mut self, statement: &str) {
        let (log, end) = self.log();
        self.read = end;
        for line in log.lines() {
            let Some((_, mark)) = line.split_once("MARK|") else {
                continue;
            };
            let parts: Vec<&str> = mark.split('|').collect();
            if let [place, user, _, gained, ..] = parts.as_slice() {
                self.count(statement, place, user, gained);
            }
        }
    }

    fn count(&mut self, statement: &str, place: &str, user: &str, gained: &str) {
        let key = [statement, place, user, gained].map(str::to_string).into();
        *self.seen.entry(key).or_default() += 1;
    }

    /// What ran as somebody else than its owner, or became more.
    pub fn offenders(&self) -> Vec<String> {
        let others = self
            .seen
            .iter()
            .filter(|((_, _, user, gained), _)| *user != self.mallory || !gained.is_empty());
        others
            .map(|((statement, place, user, gained), times)| {
                format!("{place} ran as {user} in {statement}, {times} times; {gained}")
            })
            .collect()
    }

    pub fn report(&self, least: usize) {
        let places: BTreeSet<&str> = self.seen.keys().map(|(_, place, ..)| place.as_str()).collect();
        println!(
            "hostile owner: {} places in {} calls: {places:?}",
            places.len(),
            self.seen.len()
        );
        let offenders = self.offenders();
        assert!(offenders.is_empty(), "{}", offenders.join("\n"));
        assert!(
            self.seen.len() >= least,
            "only {} of the traps sprang: {:#?}",
            self.seen.len(),
            self.seen
        );
    }
}

/// What `offenders` says is worth nothing unless a place that does run as somebody else is seen, one that can become somebody else,
/// and one that leaves something behind.
#[test]
fn a_place_that_runs_as_somebody_else_or_becomes_it_is_seen() {
    let mut scene = Scene::new("hostile_control", &[]);
    let mut postgres = scene.database.connect();
    scene.call(&mut postgres, "SELECT evil.ok('control')");
    let found = scene.offenders().join("\n");
    assert!(found.contains("control ran as postgres"), "{found}");
    assert!(found.contains("cursor that is held ran as postgres"), "{found}");
    assert!(found.contains("settings left behind"), "{found}");
    scene.seen.clear();
    run(&mut postgres, &["RESET ALL", "CLOSE ALL", "SET ROLE mallory"]);
    scene.call(&mut postgres, "SELECT evil.ok('control')");
    let found = scene.offenders().join("\n");
    assert!(found.contains("control ran as mallory"), "{found}");
    for attempt in [
        "RESET ROLE",
        "SET SESSION AUTHORIZATION postgres",
        "DO ",
        "LISTEN",
    ] {
        assert!(found.contains(attempt), "{attempt}: {found}");
    }
}
