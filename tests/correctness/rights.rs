//! Who may write, whose rights the sync has, and where it looks for names.

use super::{At, PLAIN, Scene, at, run};
use crate::common::{Database, sqlstate};
use postgres::Client;

/// A role that goes with the test. Roles are the cluster's.
struct Role {
    name: String,
    postgres: Client,
}

impl Role {
    fn new(database: &Database, prefix: &str) -> Role {
        let mut role = Role {
            name: format!("{prefix}_{}", database.name),
            postgres: database.connect(),
        };
        run(
            &mut role.postgres,
            &[&format!("CREATE ROLE \"{}\" LOGIN", role.name)],
        );
        role
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            run(
                &mut self.postgres,
                &[
                    &format!("DROP OWNED BY \"{}\" CASCADE", self.name),
                    &format!("DROP ROLE \"{}\"", self.name),
                ],
            );
        }
    }
}

fn session_as(scene: &Scene, role: &str) -> Client {
    let mut client = scene.database.connect_as(role);
    run(&mut client, &[&format!("SET search_path = {}", scene.schema)]);
    client
}

/// Plays a scene at every moment with two roles: `{owner}`, who owns the table, and `{writer}`.
fn with_roles(test: &str, setup: &[&str], play: impl Fn(&mut Scene, &str, &str)) {
    let database = Database::new(test);
    let (owner, writer) = (Role::new(&database, "owner"), Role::new(&database, "writer"));
    for moment in At::COPY.into_iter().chain(At::LIVE) {
        let schema = format!("at_{moment:?}").to_lowercase();
        let mut statements: Vec<String> = setup
            .iter()
            .map(|s| {
                s.replace("{owner}", &owner.name)
                    .replace("{writer}", &writer.name)
            })
            .collect();
        statements.push(format!("GRANT USAGE ON SCHEMA {schema} TO PUBLIC"));
        statements.push(format!("GRANT CREATE ON SCHEMA {schema} TO \"{}\"", owner.name));
        statements.push(format!("ALTER TABLE a OWNER TO \"{}\"", owner.name));
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        at(&database, moment, &statements, "'d'", |scene| {
            play(scene, &owner.name, &writer.name);
            super::nothing_more
        });
    }
}

#[test]
fn a_writer_with_insert_only_needs_and_gains_nothing_else() {
    with_roles("insert_only", &PLAIN, |scene, _, writer| {
        let (side, other) = if scene.at == At::Twin {
            ("a_partitioned", "a")
        } else {
            ("a", "a_partitioned")
        };
        scene.run(&[&format!("GRANT INSERT ON {side} TO \"{writer}\"")]);
        let mut client = session_as(scene, writer);
        run(
            &mut client,
            &[
                &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 500, 1, 'writer')"),
                &format!(
                    "INSERT INTO {side} SELECT g, '2026-02-02', g, 1, 'writer' FROM generate_series(501, 520) g"
                ),
            ],
        );
        for refused in [
            format!("SELECT FROM {side}"),
            format!("UPDATE {side} SET n = 1"),
            format!("DELETE FROM {side}"),
            format!("TRUNCATE {side}"),
            format!("SELECT FROM {other}"),
            format!("INSERT INTO {other} VALUES (600, '2026-02-02')"),
            format!("DELETE FROM {other}"),
            "INSERT INTO partition_router.pair SELECT * FROM partition_router.pair".into(),
            "SELECT FROM partition_router.change_log_1".into(),
        ] {
            let code = sqlstate(&mut client, &refused);
            assert!(
                ["42501", "42P01"].contains(&code.as_str()),
                "at {:?}: {refused}: {code}",
                scene.at
            );
        }
        assert_eq!(
            sqlstate(
                &mut client,
                &format!("INSERT INTO {side} VALUES (1, '2026-01-02')")
            ),
            "23505"
        );
    });
}

#[test]
fn a_security_definer_function_writes_with_its_owners_rights() {
    with_roles("definer", &PLAIN, |scene, owner, writer| {
        scene.run(&[
            &format!(
                "CREATE FUNCTION book(int) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN
                     INSERT INTO {} VALUES ($1, '2026-02-02', $1, 1, session_user || ' ' || current_user);
                     UPDATE {} SET d = d + 31, t = current_user WHERE id = $1 - 490;
                     DELETE FROM {} WHERE id = $1 - 480;
                     RETURN current_user; END$$",
                scene.at.side(),
                scene.at.side(),
                scene.at.side()
            ),
            &format!("ALTER FUNCTION book OWNER TO \"{owner}\""),
            &format!("ALTER FUNCTION book SET search_path = {}", scene.schema),
        ]);
        let mut client = session_as(scene, writer);
        for id in [500, 501] {
            assert_eq!(
                super::one::<String>(&mut client, &format!("SELECT book({id})")),
                owner
            );
        }
        assert_eq!(
            super::one::<String>(&mut client, "SELECT current_user::text"),
            writer
        );
        assert_eq!(
            sqlstate(&mut client, &format!("DELETE FROM {}", scene.at.side())),
            "42501"
        );
    });
}

#[test]
fn row_security_hides_no_row_from_the_sync() {
    let setup = [
        "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, who text, n int)",
        "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, CASE WHEN g % 2 = 0 THEN '{writer}' ELSE 'somebody' END, g FROM generate_series(1, 100) g",
        "GRANT ALL ON a TO \"{writer}\"",
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE POLICY p ON a USING (who = current_user)",
    ];
    with_roles("rls", &setup, |scene, owner, writer| {
        let side = scene.at.side();
        // The owner is not exempt: he sees nothing.
        let mut client = session_as(scene, owner);
        assert_eq!(
            super::one::<i64>(&mut client, &format!("SELECT count(*) FROM {side}")),
            0
        );
        let mut client = session_as(scene, writer);
        run(
            &mut client,
            &[
                &format!("INSERT INTO {side} VALUES (500, '2026-02-02', current_user, 1)"),
                &format!("UPDATE {side} SET d = d + 31 WHERE id <= 20"),
                &format!("UPDATE {side} SET n = -1"),
                &format!("DELETE FROM {side} WHERE id BETWEEN 31 AND 40"),
            ],
        );
        assert_eq!(
            sqlstate(
                &mut client,
                &format!("INSERT INTO {side} VALUES (502, '2026-02-02', 'other')")
            ),
            "42501"
        );
        assert_eq!(
            sqlstate(
                &mut client,
                &format!("UPDATE {side} SET who = 'other' WHERE id = 2")
            ),
            "42501"
        );
        assert_eq!(
            super::one::<i64>(&mut client, &format!("SELECT count(*) FROM {side}")),
            46
        );
        assert_eq!(scene.one::<i64>("SELECT count(*) FROM {} WHERE n = -1"), 46);
        if scene.at.is_live() {
            run(&mut client, &[&format!("TRUNCATE {side}")]);
            assert_eq!(super::compare(&mut scene.keeper, "a"), 0);
        }
    });
}

/// Things that would be found first, were they looked for by name.
const TRAPS: [&str; 11] = [
    "CREATE TABLE trap.a (id int)",
    "CREATE TABLE trap.a_partitioned (id int)",
    "CREATE TABLE trap.pair (id int)",
    "CREATE DOMAIN trap.int4 AS pg_catalog.int4 CHECK (VALUE < 0)",
    "CREATE DOMAIN trap.jsonb AS pg_catalog.jsonb CHECK (false)",
    "CREATE DOMAIN trap.regclass AS pg_catalog.regclass CHECK (false)",
    "CREATE FUNCTION trap.spring(pg_catalog.int4, pg_catalog.int4) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$",
    "CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RAISE 'trapped'; END$$",
    "CREATE FUNCTION trap.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$",
    "CREATE OPERATOR trap.= (LEFTARG = pg_catalog.int4, RIGHTARG = pg_catalog.int4, FUNCTION = trap.spring)",
    "CREATE OPERATOR trap.<> (LEFTARG = pg_catalog.int4, RIGHTARG = pg_catalog.int4, FUNCTION = trap.spring)",
];

#[test]
fn nothing_that_a_hostile_search_path_offers_is_used() {
    let setup = [
        "CREATE FUNCTION vet(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0'",
        "CREATE TABLE a (id int PRIMARY KEY CHECK (vet(id)), d date NOT NULL, s text, l text GENERATED ALWAYS AS (lower(s)) STORED, n int, UNIQUE (n, d))",
        "CREATE INDEX ON a (upper(s)) WHERE n > 0",
        "INSERT INTO a (id, d, s, n) SELECT g, date '2026-01-01' + g % 80, 'S', g FROM generate_series(1, 100) g",
    ];
    let database = Database::new("traps");
    run(&mut database.connect(), &["CREATE SCHEMA trap"]);
    run(&mut database.connect(), &TRAPS);
    for moment in At::COPY.into_iter().chain(At::LIVE) {
        at(&database, moment, &setup, "'d'", |scene| {
            let table = format!("{}.{}", scene.schema, scene.at.side());
            let own = scene.schema.clone();
            scene.run(&[
                &format!("SET search_path = trap, pg_catalog, {own}"),
                &format!("INSERT INTO {table} VALUES (500, '2026-02-02', 'UP', DEFAULT, 500)"),
                &format!("UPDATE {table} SET d = d + 31, s = 'MOVED' WHERE id < 5"),
                &format!("UPDATE {table} SET id = id + 1000 WHERE id < 3"),
                &format!("DELETE FROM {table} WHERE id < 4"),
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                &format!("UPDATE {table} SET n = n + 1000 WHERE id > 90"),
                "COMMIT",
            ]);
            if scene.at.is_live() {
                // The extension's own calls, with their plain names in the way.
                let call = format!(
                    "SELECT bool_and(matches)::text FROM partition_router.verify('{own}.a'::pg_catalog.regclass, 'rows')"
                );
                assert_eq!(scene.one::<String>(&call), "true");
            }
            scene.run(&[&format!("SET search_path = {own}")]);
            |scene: &mut Scene| {
                let values =
                    "SELECT string_agg(l, ' ' ORDER BY id) FROM a_partitioned WHERE id IN (4, 500, 1001)";
                assert_eq!(scene.one::<String>(values), "moved up moved");
            }
        });
    }
}

#[test]
fn expressions_run_as_the_owner_in_a_security_restricted_operation() {
    // A CHECK of the other side tells who evaluates it, and tries to become somebody else.
    let setup = [
        "CREATE TABLE told (side text, who text, session text, path text, tries text)",
        "GRANT INSERT, SELECT ON told TO PUBLIC",
        "CREATE FUNCTION tell() RETURNS boolean LANGUAGE plpgsql AS $$DECLARE tries text := ''; BEGIN
             BEGIN SET ROLE postgres; tries := 'became postgres'; EXCEPTION WHEN OTHERS THEN tries := SQLSTATE; END;
             BEGIN PERFORM set_config('role', 'postgres', false); tries := tries || ' became postgres'; EXCEPTION WHEN OTHERS THEN tries := tries || ' ' || SQLSTATE; END;
             BEGIN CREATE TEMP TABLE hidden (id int); tries := tries || ' made a table'; EXCEPTION WHEN OTHERS THEN tries := tries || ' ' || SQLSTATE; END;
             BEGIN SET SESSION AUTHORIZATION postgres; tries := tries || ' is postgres'; EXCEPTION WHEN OTHERS THEN tries := tries || ' ' || SQLSTATE; END;
             EXECUTE format('INSERT INTO %I.told VALUES ($1, $2, $3, $4, $5)', '{schema}') USING 'twin', current_user, session_user, current_setting('search_path'), tries;
             RETURN true; END$$",
    ];
    let database = Database::new("restricted");
    let (owner, writer) = (Role::new(&database, "owner"), Role::new(&database, "writer"));
    for moment in At::LIVE {
        let schema = format!("at_{moment:?}").to_lowercase();
        let mut statements: Vec<String> = PLAIN.iter().map(ToString::to_string).collect();
        statements.extend(setup.iter().map(|s| s.replace("{schema}", &schema)));
        statements.push(format!("GRANT USAGE ON SCHEMA {schema} TO PUBLIC"));
        statements.push(format!("GRANT CREATE ON SCHEMA {schema} TO \"{}\"", owner.name));
        statements.push(format!("ALTER TABLE a OWNER TO \"{}\"", owner.name));
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        at(&database, moment, &statements, "'d'", |scene| {
            let (side, other) = if moment == At::Twin {
                ("a_partitioned", "a")
            } else {
                ("a", "a_partitioned")
            };
            scene.keeper_run(&[
                &format!("ALTER TABLE {other} ADD CONSTRAINT tell CHECK (tell()) NOT VALID"),
                &format!("GRANT ALL ON {side} TO \"{}\"", writer.name),
                "TRUNCATE told",
            ]);
            // A superuser writes, and a role without any right on the other side does.
            scene.run(&[
                &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 500, 1, 'postgres')"),
                &format!("UPDATE {side} SET d = d + 31 WHERE id = 500"),
            ]);
            let mut client = session_as(scene, &writer.name);
            run(
                &mut client,
                &[
                    &format!("INSERT INTO {side} VALUES (501, '2026-02-02', 501, 1, 'writer')"),
                    &format!("UPDATE {side} SET n = 2 WHERE id = 501"),
                ],
            );
            let told = "SELECT string_agg(DISTINCT concat_ws('; ', who, path, tries), ' | ') || ' times ' || count(*) FROM told";
            assert_eq!(
                scene.one::<String>(told),
                format!(
                    "{}; pg_catalog, pg_temp; 42501 42501 42501 42501 times 4",
                    owner.name
                ),
                "on {side}"
            );
            scene.keeper_run(&[&format!("ALTER TABLE {other} DROP CONSTRAINT tell")]);
            super::nothing_more
        });
    }
}

#[test]
fn the_copy_and_the_drain_run_as_the_owner_too() {
    let database = Database::new("restricted_copy");
    let owner = Role::new(&database, "owner");
    let mut client = super::session(&database, "public");
    run(&mut client, &PLAIN);
    run(
        &mut client,
        &[
            "CREATE SEQUENCE asked",
            "GRANT ALL ON asked TO PUBLIC",
            "CREATE FUNCTION vet() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
                 PERFORM nextval('public.asked');
                 BEGIN SET ROLE postgres; EXCEPTION WHEN insufficient_privilege THEN
                     RETURN current_user LIKE 'owner%' AND current_setting('search_path') LIKE 'pg_catalog%';
                 END; RETURN false; END$$",
            &format!("GRANT CREATE ON SCHEMA public TO \"{}\"", owner.name),
            &format!("ALTER TABLE a OWNER TO \"{}\"", owner.name),
            "SELECT partition_router.create_twin('a', 'd')",
            "ALTER TABLE a_partitioned ADD CONSTRAINT vet CHECK (vet()) NOT VALID",
            "SELECT partition_router.start_sync('a')",
        ],
    );
    super::steps_until(&mut client, "drain");
    run(
        &mut client,
        &[
            "UPDATE a SET n = n + 1, d = d + 31 WHERE id <= 20",
            "CALL partition_router.backfill('a')",
            "UPDATE a SET n = n + 1, d = d + 31 WHERE id <= 5",
        ],
    );
    super::compare(&mut client, "a");
    assert!(super::one::<i64>(&mut client, "SELECT last_value FROM asked") >= 25);
    run(&mut client, &["ALTER TABLE a_partitioned DROP CONSTRAINT vet"]);
}
