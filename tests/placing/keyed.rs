//! What partitions have of their own, keys above all: when they are placed, made beside a placed one, and back.

use crate::common::{one, run, sqlstate, texts};
use crate::{PLACE, SUM, World, assert_clean, assert_well, kind, world};
use postgres::Client;

/// A table that was migrated, and is partitioned alone by now: partitions of January to April, with a primary key.
const MIGRATED: [&str; 6] = [
    "DROP TABLE visits",
    "CREATE TABLE visits (id bigint PRIMARY KEY, at date NOT NULL, note text UNIQUE)",
    "INSERT INTO visits SELECT g, date '2025-01-01' + g % 115, 'visit ' || g FROM generate_series(1, 4000) g",
    "CALL partition_router.migrate('visits', 'at')",
    "CALL partition_router.switchover('visits')",
    "CALL partition_router.cleanup('visits')",
];

/// The statements of a dry run that are to be run by hand, before the call or over there.
fn by_hand(world: &World, place: &str) -> Vec<String> {
    let (mut hearing, notices) = world.here.connect_hearing();
    let call = format!("CALL partition_router.place('{place}', 'cold', dry_run => true)");
    let refused = hearing.batch_execute(&call).is_err();
    drop(hearing);
    let statements: Vec<String> = notices
        .iter()
        .filter(|line| line.contains("by hand"))
        .filter_map(|line| Some(line.splitn(3, ": ").nth(2)?.to_string()))
        .collect();
    assert_eq!(refused, statements.len() > 1, "{statements:?}");
    statements
}

const KEYS: &str =
    "SELECT string_agg(concat_ws(' ', c.relname, x.relname), ', ' ORDER BY c.relname, x.relname)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
    WHERE c.relname LIKE 'visits%' AND i.indisprimary AND i.indisvalid";

#[test]
fn a_table_with_a_key_places_partitions_once_each_has_a_key_of_its_own() {
    let mut world = world("keyed");
    run(&mut world.client, &MIGRATED);
    let mut there = world.there();
    let january = "visits_2025_01";
    let place = format!("CALL partition_router.place('{january}', 'cold')");
    // What was printed runs as it was.
    let first = by_hand(&world, january);
    let c = &mut world.client;
    run(
        c,
        &[
            "GRANT SELECT ON visits_2025_03 TO pg_monitor",
            "ALTER TABLE visits_2025_03 SET (fillfactor = 80)",
        ],
    );
    let before: String = one(c, SUM);
    let keys: String = one(c, KEYS);
    assert!(keys.starts_with("visits visits_"), "{keys}");
    for statement in &first {
        run(c, &[statement]);
    }
    let own: String = one(c, KEYS);
    assert_eq!(
        keys.split_once(", ").expect("of the root, first").1,
        own,
        "the same names"
    );
    let built =
        "SELECT count(*) FROM pg_index WHERE indrelid::regclass::text LIKE 'visits%' AND NOT indisvalid";
    assert_eq!(one::<i64>(c, built), 0);
    // Without the key over there it is refused, with the statement.
    run(
        &mut there,
        &[
            "CREATE TABLE visits_2025_01 (id bigint NOT NULL, at date NOT NULL, note text,
               CHECK (at >= '2025-01-01' AND at < '2025-02-01'))",
        ],
    );
    assert_eq!(sqlstate(c, &place), "PR023");
    run(&mut there, &["DROP TABLE visits_2025_01"]);
    let [over_there] = by_hand(&world, january).try_into().expect("one statement");
    run(&mut there, &[&over_there]);
    let c = &mut world.client;
    run(c, &[&place]);
    assert_eq!(kind(c, january), "f");
    assert_eq!(one::<String>(c, SUM), before);

    // Keys hold here and there, if not for ON CONFLICT with columns.
    let twice = |at: &str| format!("INSERT INTO visits SELECT * FROM visits WHERE at = '{at}' LIMIT 1");
    assert_eq!(sqlstate(c, &twice("2025-01-05")), "23505");
    assert_eq!(sqlstate(c, &twice("2025-02-05")), "23505");
    let upsert = "INSERT INTO visits VALUES (1, '2025-02-05', 'x') ON CONFLICT";
    assert_eq!(sqlstate(c, &format!("{upsert} (id, at) DO NOTHING")), "42P10");
    run(
        c,
        &[
            &format!("{upsert} DO NOTHING"),
            "UPDATE visits SET note = note || '!' WHERE at < '2025-02-03'",
            "DELETE FROM visits WHERE id % 10 = 0",
            "INSERT INTO visits VALUES (9000, '2025-01-31', 'late'), (9001, '2025-04-01', 'now')",
        ],
    );
    let before: String = one(c, SUM);

    // Maintenance goes on: the next partition has the key and what else the newest one here has.
    run(
        c,
        &[
            "SELECT partition_router.create_range_partition('visits', 'visits_before', '2024-12-01', '2025-01-01')",
            "SELECT partition_router.set_policy('visits', premake => 1)",
            "CALL partition_router.run_maintenance('visits')",
        ],
    );
    assert_well(c);
    let keyless = texts(
        c,
        "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
         WHERE inhparent = 'visits'::regclass AND relkind = 'r'
           AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indisvalid)",
    );
    assert!(keyless.is_empty(), "{keyless:?}");
    let made: String = one(c, KEYS);
    assert!(made.contains("visits_before visits_before_pkey"), "{made}");

    // Another one goes without more ado; and both come back, with their keys.
    let [february] = by_hand(&world, "visits_2025_02")
        .try_into()
        .expect("one statement");
    run(&mut there, &[&february]);
    let c = &mut world.client;
    run(
        c,
        &[
            "CALL partition_router.place('visits_2025_02', 'cold')",
            "CALL partition_router.place('visits_2025_01', NULL)",
            "CALL partition_router.place('visits_2025_02', NULL)",
        ],
    );
    assert_clean(c);
    assert_eq!(one::<String>(c, SUM), before);
    let back: String = one(c, KEYS);
    assert_eq!(back.replace("visits_2025_01 visits_2025_01_pkey, ", ""), made);
    assert_ne!(back, made);
    // Then one statement gives the table its key again, and builds nothing.
    let files = "SELECT string_agg(pg_relation_filenode(indexrelid)::text, ' ' ORDER BY indexrelid) FROM pg_index
                 WHERE indisprimary AND indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'visits'::regclass)";
    let built: String = one(c, files);
    run(
        c,
        &[
            "ALTER TABLE visits ADD PRIMARY KEY (id, at)",
            &format!("{upsert} (id, at) DO NOTHING"),
        ],
    );
    assert_eq!(one::<String>(c, files), built);
    assert!(one::<bool>(
        c,
        "SELECT indisvalid FROM pg_index WHERE indrelid = 'visits'::regclass AND indisprimary"
    ));
}

#[test]
fn new_partitions_and_one_that_is_back_take_after_the_newest_one_here() {
    let mut world = world("taken_after");
    let (mut there, c) = (world.there(), &mut world.client);
    let role = format!("reader_{}", world.here.name);
    run(&mut there, &[PLACE]);
    run(
        c,
        &[
            &format!("CREATE ROLE {role}"),
            &format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}"),
        ],
    );
    for partition in texts(
        c,
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'visits'::regclass",
    ) {
        run(
            c,
            &[
                &format!("ALTER TABLE {partition} SET (fillfactor = 70)"),
                &format!("GRANT INSERT ON {partition} TO {role}"),
                &format!("ALTER TABLE {partition} ENABLE ROW LEVEL SECURITY"),
            ],
        );
    }
    let looks = |c: &mut Client, table: &str| {
        one::<String>(
            c,
            &format!(
                "SELECT concat_ws(' ', relrowsecurity, array_to_string(reloptions, ' '), has_table_privilege('{role}', oid, 'INSERT'),
                                  has_table_privilege('{role}', oid, 'SELECT')) FROM pg_class WHERE oid = '{table}'::regclass"
            ),
        )
    };
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    // Default privileges would let others read past the row security above.
    assert_eq!(
        looks(c, "visits_2025_01"),
        "f batch_size f f".replace(" batch_size", "")
    );
    run(
        c,
        &[
            "SELECT partition_router.create_range_partition('visits', 'visits_old', '2020-01-01', '2020-02-01')",
        ],
    );
    assert_eq!(looks(c, "visits_old"), "t fillfactor=70 t f");
    run(c, &["CALL partition_router.place('visits_2025_01', NULL)"]);
    assert_eq!(looks(c, "visits_2025_01"), "t fillfactor=70 t f");
    run(
        c,
        &[&format!("DROP OWNED BY {role}"), &format!("DROP ROLE {role}")],
    );
}

#[test]
fn keys_of_all_tables_above_a_partition_make_way() {
    let mut world = world("deep_keys");
    run(
        &mut world.client,
        &[
            "DROP TABLE visits",
            "CREATE TABLE visits (id bigint, at date, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE visits_2025_01 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2025-02-01') PARTITION BY HASH (id)",
            "CREATE TABLE visits_2025_01_0 PARTITION OF visits_2025_01 FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
            "CREATE TABLE visits_2025_01_1 PARTITION OF visits_2025_01 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
            "CREATE UNIQUE INDEX ON visits_2025_01 (id)",
            // Of its own, with a name that the others would be given.
            "CREATE TABLE visits_2025_02 PARTITION OF visits FOR VALUES FROM ('2025-02-01') TO ('2025-03-01')",
            "CREATE UNIQUE INDEX visits_2025_02_id_idx ON visits_2025_02 (id)",
            "INSERT INTO visits SELECT g, date '2025-01-01' + g % 50, 'visit ' || g FROM generate_series(1, 400) g",
        ],
    );
    let first = by_hand(&world, "visits_2025_01_0");
    let indexes =
        "SELECT string_agg(concat_ws(' ', c.relname, x.relname), ', ' ORDER BY c.relname, x.relname)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
        WHERE c.relname LIKE 'visits\\_2025\\_0%' AND c.relkind = 'r' AND i.indisunique AND i.indisvalid";
    let (before, leaves): (String, String) = (one(&mut world.client, SUM), one(&mut world.client, indexes));
    for statement in &first {
        run(&mut world.client, &[statement]);
    }
    assert_eq!(one::<String>(&mut world.client, indexes), leaves);
    let [over_there] = by_hand(&world, "visits_2025_01_0")
        .try_into()
        .expect("one statement");
    let mut there = world.there();
    run(&mut there, &[&over_there]);
    let c = &mut world.client;
    run(c, &["CALL partition_router.place('visits_2025_01_0', 'cold')"]);
    assert_eq!(kind(c, "visits_2025_01_0"), "f");
    assert_eq!(one::<String>(c, SUM), before);
    assert_eq!(
        sqlstate(c, "INSERT INTO visits SELECT * FROM visits_2025_01_0 LIMIT 1"),
        "23505"
    );
    run(c, &["CALL partition_router.place('visits_2025_01_0', NULL)"]);
    assert_eq!(one::<String>(c, indexes), leaves);
    assert_eq!(one::<String>(c, SUM), before);
    assert_clean(c);
}
