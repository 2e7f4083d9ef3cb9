//! The digests of `verify` are those of the specification, for every type there is and for values of any shape.

use crate::common::{Database, clock_seed, one, run};
use crate::kinds::SHAPES;
use crate::spec::{Types, checksum};
use crate::{database_with_types, digests};
use postgres::Client;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Both sides of a pair, partition by partition, against the specification.
fn assert_as_specified(client: &mut Client, table: &str) {
    let types = Types::load(client);
    let verdicts = client
        .query(
            &format!(
                "SELECT partition::text, legacy_rows, legacy_checksum, twin_rows, twin_checksum
                 FROM partition_router.verify('{table}', 'checksum', full => true)"
            ),
            &[],
        )
        .expect("verify can be called");
    let (mut rows, mut sum) = (0, 0u128);
    for verdict in &verdicts {
        let leaf: String = verdict.get(0);
        let expected = checksum(client, &types, &leaf);
        assert_eq!((verdict.get(3), verdict.get(4)), expected, "{leaf}");
        rows += verdict.get::<_, i64>(1);
        let legacy = u128::from_str_radix(verdict.get(2), 16).expect("a checksum is hexadecimal");
        sum = sum.wrapping_add(legacy);
    }
    assert_eq!(
        (rows, format!("{sum:032x}")),
        checksum(client, &types, table),
        "{table}"
    );
}

#[test]
fn the_specification_alone_gives_the_digests_of_every_type() {
    let (_database, mut client) = database_with_types("specified");
    let c = &mut client;
    for shape in SHAPES {
        let table = shape.table;
        let definitions: Vec<String> = shape
            .columns
            .iter()
            .map(|c| format!("{} {}", c.name, c.ty.split(" STORAGE_").next().unwrap_or(c.ty)))
            .collect();
        let values: Vec<&str> = shape.columns.iter().map(|c| c.value).collect();
        run(
            c,
            &[
                &format!(
                    "CREATE TABLE {table} (id bigint PRIMARY KEY, part int NOT NULL, {})",
                    definitions.join(", ")
                ),
                &format!(
                    "INSERT INTO {table} SELECT g, g % 30, {} FROM generate_series(100::bigint, 140) g",
                    values.join(", ")
                ),
                &format!("INSERT INTO {table} (id, part) SELECT g, g % 30 FROM generate_series(1, 5) g"),
            ],
        );
        // The values that faults make are as good as others.
        for (number, column) in shape.columns.iter().enumerate() {
            for (fault, (_, expression)) in column.faults.iter().enumerate() {
                let id = 100 + (number * 3 + fault) % 41;
                let expression = expression.replace("$r", "12345");
                run(
                    c,
                    &[&format!(
                        "UPDATE {table} SET {} = {expression} WHERE id = {id}",
                        column.name
                    )],
                );
            }
        }
        run(
            c,
            &[&format!(
                "CALL partition_router.migrate('{table}', 'part', partition_interval => '10', premake => 0)"
            )],
        );
        assert_as_specified(c, table);
    }
}

/// A number as text, of any size and scale.
fn number(random: &mut ChaCha8Rng) -> String {
    let mut digits = |most: usize| -> String {
        let length = random.random_range(0..=most);
        (0..length)
            .map(|_| char::from(b'0' + random.random_range(0..10) * random.random_range(0..2)))
            .collect()
    };
    let most = [3, 20, 300][usize::from(digits(8).len() as u8 % 3)];
    let (whole, decimals) = (digits(most), digits(most));
    let sign = if digits(1).is_empty() { "-" } else { "" };
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{sign}0{whole}{point}{decimals}")
}

/// JSON of some depth, with objects and arrays of more than 32 elements among others.
fn json(random: &mut ChaCha8Rng, depth: u32) -> String {
    let count = [0, 1, 3, 40][random.random_range(0..4)];
    match random.random_range(0..if depth == 0 { 5 } else { 7 }) {
        0 => "null".into(),
        1 => random.random_bool(0.5).to_string(),
        2 => {
            let number = number(random);
            // JSON has no leading zeros.
            let (sign, rest) = number.split_at(usize::from(number.starts_with('-')));
            let rest = rest.trim_start_matches('0');
            format!(
                "{sign}{}{rest}",
                if rest.is_empty() || rest.starts_with('.') {
                    "0"
                } else {
                    ""
                }
            )
        }
        3 | 4 => format!(
            "\"{}é\\n\\\"{}\"",
            "x".repeat(random.random_range(0..9)),
            random.random_range(0..99)
        ),
        5 => {
            let values: Vec<String> = (0..count).map(|_| json(random, depth - 1)).collect();
            format!("[{}]", values.join(","))
        }
        _ => {
            let pairs: Vec<String> = (0..count)
                .map(|i| {
                    format!(
                        "\"{}{i}\":{}",
                        "k".repeat(random.random_range(0..5)),
                        json(random, depth - 1)
                    )
                })
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
    }
}

#[test]
fn the_specification_gives_the_digests_of_random_values() {
    let seed = clock_seed();
    println!("values: seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let database = Database::new("random");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE v (id int PRIMARY KEY, part int NOT NULL, n numeric, j jsonb, ns numeric[], b bit varying, t text)",
        ],
    );
    let insert = c
        .prepare(
            "INSERT INTO v VALUES ($1, $1 % 20, $2::text::numeric, $3::text::jsonb, $4::text::numeric[],
                 $5::text::bit varying, $6)",
        )
        .expect("the statement is right");
    for id in 0..300i32 {
        let bits: String = (0..random.random_range(0..40))
            .map(|_| if random.random_bool(0.5) { '1' } else { '0' })
            .collect();
        let text = "é".repeat(random.random_range(0..300));
        let values = format!("{{{},{},NULL}}", number(&mut random), number(&mut random));
        let (n, j) = (number(&mut random), json(&mut random, 3));
        c.execute(&insert, &[&id, &n, &j, &values, &bits, &text])
            .unwrap_or_else(|error| panic!("{n} {j}: {error:?}"));
    }
    run(
        c,
        &["CALL partition_router.migrate('v', 'part', partition_interval => '10', premake => 0)"],
    );
    assert_as_specified(c, "v");
}

#[test]
fn types_that_others_made_are_named_and_still_compared() {
    let database = Database::new("others");
    let (mut client, notices) = database.connect_hearing();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE EXTENSION cube",
            "CREATE EXTENSION seg",
            "CREATE TABLE v (id int PRIMARY KEY, cu cube, s seg, n int)",
            "INSERT INTO v SELECT g, cube(g, 2), (g || ' .. 200')::seg, g FROM generate_series(1, 20) g",
            "CALL partition_router.migrate('v', 'id', 'hash', partitions => 2)",
        ],
    );
    notices.try_iter().for_each(drop);
    run(c, &["SELECT partition_router.verify('v')"]);
    let told: Vec<String> = notices.try_iter().filter(|line| line.contains("cu (")).collect();
    assert!(
        matches!(&told[..], [line] if line.contains("s (") && !line.contains("n (")),
        "{told:?}"
    );
    assert_as_specified(c, "v");
    let recorded: String = one(
        c,
        "SELECT detail::text FROM partition_router.run_log WHERE operation = 'verify' ORDER BY id DESC LIMIT 1",
    );
    assert!(
        recorded.contains("\"cu (") && recorded.contains("\"s ("),
        "{recorded}"
    );
    assert!(!recorded.contains("\"n ("), "{recorded}");
    let before = digests(c, "v");
    run(c, &["SET extra_float_digits = -15", "SET DateStyle = 'German'"]);
    assert_eq!(digests(c, "v"), before);
}

#[test]
fn mismatches_show_values_exactly() {
    let database = Database::new("exact");
    let mut client = database.connect();
    let c = &mut client;
    let columns = "n numeric, huge numeric, j jsonb, f float8, l text, t text";
    run(
        c,
        &[
            &format!("CREATE TABLE v (id bigint PRIMARY KEY, part int NOT NULL, {columns})"),
            "INSERT INTO v SELECT 9007199254740993, 1, 12345678901234567890.12345678900, repeat('9', 400)::numeric, '{\"b\": 1.00, \"a\": 1e30}',
                0.1, 'l', 't'",
            "CREATE TABLE kept AS TABLE v",
            "CALL partition_router.migrate('v', 'part', partition_interval => '10', premake => 0)",
        ],
    );
    crate::common::plant(c, "v_partitioned", &["UPDATE v_partitioned SET f = -f"]);
    let exact: bool = one(
        c,
        "SELECT m.legacy::text = to_jsonb(k)::text AND m.twin ->> 'n' = k.n::text AND m.twin ->> 'huge' = k.huge::text
            AND m.key ->> 'id' = '9007199254740993'
         FROM partition_router.mismatches('v') m, kept k",
    );
    assert!(exact);
    let columns: Vec<String> = one(c, "SELECT columns FROM partition_router.mismatches('v')");
    assert_eq!(columns, ["f"]);
}
