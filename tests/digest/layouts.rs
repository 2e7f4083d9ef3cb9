//! What has no influence: how values are stored, where columns stand, and the settings of the session that asks.

use crate::common::{clock_seed, is_stress, one, plant, run, texts};
use crate::kinds::{SHAPES, Shape};
use crate::{database_with_types, digests};
use postgres::Client;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SETTINGS: &[(&str, &[&str])] = &[
    ("DateStyle", &["ISO, MDY", "German", "SQL, DMY", "Postgres, YMD"]),
    (
        "TimeZone",
        &["UTC", "Asia/Tokyo", "America/St_Johns", "Pacific/Apia"],
    ),
    (
        "IntervalStyle",
        &["postgres", "postgres_verbose", "sql_standard", "iso_8601"],
    ),
    ("extra_float_digits", &["-15", "0", "1", "3"]),
    ("bytea_output", &["hex", "escape"]),
    ("xmlbinary", &["base64", "hex"]),
    ("xmloption", &["content", "document"]),
    ("client_encoding", &["UTF8", "SQL_ASCII"]),
    ("default_toast_compression", &["pglz", "lz4"]),
    ("quote_all_identifiers", &["on", "off"]),
    ("array_nulls", &["on", "off"]),
    ("search_path", &["public", "pg_temp, pg_catalog, public"]),
    ("enable_seqscan", &["on", "off"]),
    ("jit", &["on", "off"]),
    ("work_mem", &["64kB", "64MB"]),
];

/// Columns that rows get later, with a default: in the reference table they are stored.
const LATER: &[(&str, &str, &str)] = &[
    ("later_int", "int", "7"),
    ("later_text", "text", "'web'"),
    ("later_number", "numeric", "1.50"),
    ("later_array", "int[]", "'{1,2}'"),
    ("later_row", "place", "ROW('s', 1.0, 2)::place"),
    ("later_json", "jsonb", "'{\"a\": 1}'"),
    ("later_null", "text", "NULL"),
    ("later_long", "text", "repeat('long', 900)"),
    ("later_mood", "mood", "'ok'"),
    ("later_double", "float8", "'-0'"),
];

const JUNK: &[&str] = &[
    "int", "text", "bool", "numeric", "int8", "\"char\"", "box", "name",
];

fn type_of(shape_type: &'static str) -> &'static str {
    shape_type.split(" STORAGE_").next().unwrap_or(shape_type)
}

/// All columns stored as the table has them, in the order of the shape.
fn reference(client: &mut Client, shape: &Shape) {
    let mut definitions = vec![
        "id bigint PRIMARY KEY".to_string(),
        "part int NOT NULL".to_string(),
    ];
    definitions.extend(
        shape
            .columns
            .iter()
            .map(|c| format!("{} {}", c.name, type_of(c.ty))),
    );
    definitions.extend(LATER.iter().map(|(name, ty, _)| format!("{name} {ty}")));
    let mut values: Vec<&str> = shape.columns.iter().map(|c| c.value).collect();
    values.extend(LATER.iter().map(|(_, _, value)| *value));
    run(
        client,
        &[
            &format!("CREATE TABLE reference ({})", definitions.join(", ")),
            &format!(
                "INSERT INTO reference SELECT g, g % 30, {} FROM generate_series(100::bigint, 159) g",
                values.join(", ")
            ),
            &format!(
                "INSERT INTO reference (id, part, {}) SELECT g, g % 30, {} FROM generate_series(1, 5) g",
                LATER.iter().map(|l| l.0).collect::<Vec<_>>().join(", "),
                LATER.iter().map(|l| l.2).collect::<Vec<_>>().join(", ")
            ),
            "CALL partition_router.migrate('reference', 'part', partition_interval => '10', premake => 0)",
        ],
    );
}

/// The same rows in a table that is laid out by chance.
fn shuffled(client: &mut Client, shape: &Shape, table: &str, random: &mut ChaCha8Rng) {
    let mut columns: Vec<(String, String)> = shape
        .columns
        .iter()
        .map(|c| (c.name.to_string(), type_of(c.ty).to_string()))
        .collect();
    columns.push(("id".into(), "bigint".into()));
    columns.push(("part".into(), "int NOT NULL".into()));
    let junk: Vec<String> = (0..random.random_range(1..8))
        .map(|i| format!("junk_{i}"))
        .collect();
    for name in &junk {
        columns.push((
            name.clone(),
            JUNK.choose(random).expect("there is junk").to_string(),
        ));
    }
    columns.shuffle(random);
    let definitions: Vec<String> = columns.iter().map(|(name, ty)| format!("{name} {ty}")).collect();
    run(
        client,
        &[&format!("CREATE TABLE {table} ({})", definitions.join(", "))],
    );
    let compressions = ["pglz", "lz4"];
    run(
        client,
        &[&format!(
            "SET default_toast_compression = {}",
            compressions.choose(random).expect("two")
        )],
    );
    let storable = texts(
        client,
        &format!(
            "SELECT quote_ident(attname) FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND typstorage <> 'p' ORDER BY 1"
        ),
    );
    for column in &storable {
        // Rows of large values do not fit in PLAIN.
        let last = if shape.table == "large" {
            "EXTENDED"
        } else {
            "PLAIN"
        };
        let storages = ["EXTERNAL", "MAIN", "EXTENDED", last];
        let storage = storages.choose(random).expect("four");
        let compression = compressions.choose(random).expect("two");
        run(
            client,
            &[&format!(
                "ALTER TABLE {table} ALTER {column} SET STORAGE {storage}, ALTER {column} SET COMPRESSION {compression}"
            )],
        );
    }
    // Junk that is there when rows come, and junk that is not.
    let early = random.random_range(0..=junk.len());
    for name in &junk[..early] {
        run(client, &[&format!("ALTER TABLE {table} DROP COLUMN {name}")]);
    }
    let names: Vec<String> = columns
        .iter()
        .map(|c| c.0.clone())
        .filter(|n| !n.starts_with("junk"))
        .collect();
    // Texts are made anew: what is only copied stays compressed as it was.
    let values: Vec<String> = columns
        .iter()
        .filter(|c| !c.0.starts_with("junk"))
        .map(|(name, ty)| {
            if ty.starts_with("text") && !ty.contains('[') {
                format!("{name} || ''")
            } else {
                name.clone()
            }
        })
        .collect();
    let rows = |some: &str| {
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM reference WHERE {some} ORDER BY random()",
            names.join(", "),
            values.join(", ")
        )
    };
    run(client, &[&rows("id % 3 <> 0")]);
    let mut later: Vec<_> = LATER.to_vec();
    later.shuffle(random);
    for (number, (name, ty, value)) in later.iter().enumerate() {
        run(
            client,
            &[&format!(
                "ALTER TABLE {table} ADD COLUMN {name} {ty} DEFAULT {value}"
            )],
        );
        if number == 4 {
            run(client, &[&rows("id % 3 = 0")]);
        }
    }
    for name in &junk[early..] {
        run(client, &[&format!("ALTER TABLE {table} DROP COLUMN {name}")]);
    }
    run(client, &[&format!("ALTER TABLE {table} ADD PRIMARY KEY (id)")]);
    if random.random_bool(0.3) {
        run(client, &[&format!("VACUUM FULL {table}")]);
    }
    if random.random_bool(0.3) {
        run(
            client,
            &[&format!("UPDATE {table} SET part = part WHERE id % 2 = 0")],
        );
    }
    run(
        client,
        &[
            "RESET default_toast_compression",
            &format!(
                "CALL partition_router.migrate('{table}', 'part', partition_interval => '10', premake => 0)"
            ),
        ],
    );
    // The twin's own layout: compressed anew, in another way.
    let mut alter = vec![];
    for column in &storable {
        if !column.starts_with("junk") {
            let storage = ["EXTERNAL", "MAIN", "EXTENDED"].choose(random).expect("three");
            alter.push(format!(
                "ALTER TABLE {table}_partitioned ALTER {column} SET STORAGE {storage}"
            ));
        }
    }
    alter.extend(
        texts(client, &format!("SELECT 'VACUUM FULL ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}_partitioned'::regclass")),
    );
    let rewritten: Vec<String> = columns
        .iter()
        .filter(|c| c.1 == "text" && !c.0.starts_with("junk"))
        .map(|c| format!("{0} = {0} || ''", c.0))
        .collect();
    if !rewritten.is_empty() {
        alter.push(format!(
            "UPDATE {table}_partitioned SET {} WHERE id % 2 = 0",
            rewritten.join(", ")
        ));
    }
    let alter: Vec<&str> = alter.iter().map(String::as_str).collect();
    plant(client, &format!("{table}_partitioned"), &alter);
}

/// What a session may have set; gives it as text.
fn settings(client: &mut Client, random: &mut ChaCha8Rng) -> String {
    let mut all = vec![];
    for (name, values) in SETTINGS {
        let value = values.choose(random).expect("there are values");
        let value = if *name == "search_path" {
            value.to_string()
        } else {
            format!("'{value}'")
        };
        all.push(format!("SET {name} = {value}"));
    }
    for category in ["lc_monetary", "lc_numeric", "lc_time", "lc_messages"] {
        let locale = ["C", "POSIX", "C.UTF-8"].choose(random).expect("three");
        all.push(format!("SET {category} = '{locale}'"));
    }
    let statements: Vec<&str> = all.iter().map(String::as_str).collect();
    run(client, &statements);
    all.join("; ")
}

fn layouts_of(shape: &'static Shape, seed: u64, combinations: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (database, mut client) = database_with_types(&format!("layout_{}", shape.table));
    let c = &mut client;
    reference(c, shape);
    let expected = digests(c, "reference");
    assert!(
        expected.ends_with('t') && !expected.contains(" f\n"),
        "{expected}"
    );
    for number in 0..combinations {
        let table = format!("layout_{number}");
        shuffled(c, shape, &table, &mut random);
        let mut other = database.connect();
        let set = settings(&mut other, &mut random);
        let what = format!("{}, combination {number}, seed {seed}: {set}", shape.table);
        assert_eq!(digests(&mut other, &table), expected, "{what}");
        assert_eq!(digests(&mut other, "reference"), expected, "{what}");
        let named: i64 = one(
            &mut other,
            &format!("SELECT count(*) FROM partition_router.mismatches('{table}')"),
        );
        assert_eq!(named, 0, "{what}");
        let rows: bool = one(
            &mut other,
            &format!("SELECT bool_and(matches) FROM partition_router.verify('{table}', 'rows')"),
        );
        assert!(rows, "{what}");
        let repaired: i64 = one(
            &mut other,
            &format!("SELECT inserted + updated + deleted FROM partition_router.repair('{table}')"),
        );
        assert_eq!(repaired, 0, "{what}");
    }
}

#[test]
fn equal_rows_have_one_digest_whatever_the_settings_and_the_layout() {
    let seed = clock_seed();
    println!("layouts: seed {seed}");
    // Twenty in all, of five tables; the long way twenty of each.
    let combinations = if is_stress() { 20 } else { 4 };
    std::thread::scope(|scope| {
        for (number, shape) in SHAPES.into_iter().enumerate() {
            scope.spawn(move || layouts_of(shape, seed + number as u64, combinations));
        }
    });
}

#[test]
fn a_jsonb_forgets_order_and_blanks_before_it_is_stored() {
    let (_database, mut client) = database_with_types("reordered");
    let c = &mut client;
    let mut found = vec![];
    for (table, value) in [
        ("one", "{\"a\": 1, \"bb\": [true, null], \"a\": 2}"),
        ("two", "{ \"bb\":[true,null],\"a\":2 }"),
    ] {
        run(
            c,
            &[
                &format!("CREATE TABLE {table} (id int PRIMARY KEY, j jsonb)"),
                &format!("INSERT INTO {table} VALUES (1, '{value}')"),
                &format!("CALL partition_router.migrate('{table}', 'id', 'hash', partitions => 1)"),
            ],
        );
        found.push(digests(c, table));
    }
    assert_eq!(found[0], found[1]);
}
