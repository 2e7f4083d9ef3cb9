//! A catalogue of tables (`shapes/*.sql`). What `pg_dump` writes of each is what it writes of its twin under the same name, but for
//! the partitions; and after `abandon` in any phase it is the same to the byte.

use super::common::{Cluster, Database, clock_seed, is_stress, one, run, texts};
use postgres::Client;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A table `t`, in a schema of its own.
struct Shape {
    name: String,
    schema: String,
    /// What `migrate` is given behind the table.
    arguments: String,
    statements: String,
}

/// Each begins with `-- shape: <name>`, and may have `-- migrate: <arguments>`; `:schema` stands for its schema.
fn shapes() -> Vec<Shape> {
    let files = [
        include_str!("shapes/columns.sql"),
        include_str!("shapes/types.sql"),
        include_str!("shapes/constraints.sql"),
        include_str!("shapes/indexes.sql"),
        include_str!("shapes/storage.sql"),
        include_str!("shapes/access.sql"),
        include_str!("shapes/behaviour.sql"),
        include_str!("shapes/strategies.sql"),
    ];
    let only = std::env::var("PARTITION_ROUTER_SHAPE").unwrap_or_default();
    let shapes: Vec<Shape> = files
        .iter()
        .flat_map(|file| file.split("-- shape: ").skip(1))
        .enumerate()
        .map(|(number, text)| {
            let (name, statements) = text.split_once('\n').expect("a shape has statements");
            let schema = format!("shape_{number:02}");
            let arguments = statements
                .lines()
                .find_map(|line| line.strip_prefix("-- migrate: "));
            Shape {
                name: name.into(),
                arguments: arguments.unwrap_or("'at', premake => 1").into(),
                statements: statements.replace(":schema", &schema),
                schema,
            }
        })
        .filter(|shape| shape.name.contains(&only))
        .collect();
    assert!(shapes.len() >= 60 || !only.is_empty(), "{}", shapes.len());
    shapes
}

impl Shape {
    fn table(&self) -> String {
        format!("{}.t", self.schema)
    }

    /// Makes the table, with a row at least.
    fn make(&self, client: &mut Client) {
        run(
            client,
            &[
                &format!("CREATE SCHEMA {0}", self.schema),
                &format!("SET search_path = {}, public", self.schema),
                &self.statements,
                &format!("GRANT ALL ON SCHEMA {} TO PUBLIC", self.schema),
            ],
        );
        if one::<i64>(client, "SELECT count(*) FROM t") == 0 {
            let row: String = one(
                client,
                "SELECT coalesce('INSERT INTO t (' || string_agg(quote_ident(attname), ', ') || ') VALUES (' ||
                     string_agg(CASE WHEN typcategory = 'D' THEN quote_literal(CURRENT_DATE) WHEN typname = 'uuid'
                         THEN '''019b0000-0000-7000-8000-000000000000''' ELSE '''1''' END, ', ') || ')', 'INSERT INTO t DEFAULT VALUES')
                 FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
                 WHERE attrelid = 't'::regclass AND attnum > 0 AND attnotnull AND NOT atthasdef AND attidentity = ''",
            );
            run(client, &[&row]);
        }
        run(client, &["RESET search_path"]);
    }

    fn call(&self, client: &mut Client, call: &str) {
        let statement = call
            .replace("$t", &format!("'{}'", self.table()))
            .replace("$how", &self.arguments);
        client
            .batch_execute(&statement)
            .unwrap_or_else(|error| panic!("{}: {statement}: {error:?}", self.name));
    }

    /// Goes on with the backfill until it is at a stage, unless that is empty.
    fn go_on_to(&self, client: &mut Client, stage: &str) {
        let now = format!(
            "SELECT coalesce((SELECT c.stage FROM partition_router.copy_state c JOIN partition_router.pair p ON p.id = c.pair_id
             WHERE p.legacy = '{}'::regclass), 'begin')",
            self.table()
        );
        while !stage.is_empty() && one::<String>(client, &now) != stage {
            assert!(
                one::<String>(client, &now) != "done",
                "{}: {stage} was left out",
                self.name
            );
            self.call(client, "SELECT partition_router.backfill_step($t, 500)");
        }
    }
}

/// A database with the roles and the tablespace that the shapes name.
fn world(name: &str) -> (Database, Client) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().expect("no test panicked in here");
    let database = Database::on(Cluster::shared(), name);
    let mut client = database.connect();
    for role in ["shape_owner", "shape_reader", "shape Owner 2"] {
        if !one::<bool>(
            &mut client,
            &format!("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"),
        ) {
            run(&mut client, &[&format!("CREATE ROLE \"{role}\"")]);
        }
    }
    if !one::<bool>(
        &mut client,
        "SELECT EXISTS (SELECT FROM pg_tablespace WHERE spcname = 'shape_space')",
    ) {
        run(
            &mut client,
            &[
                "SET allow_in_place_tablespaces = on",
                "CREATE TABLESPACE shape_space LOCATION ''",
            ],
        );
    }
    run(&mut client, &["SET client_min_messages = warning"]);
    (database, client)
}

/// The objects of a dump by schema and by `name; type`.
fn objects(dump: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for chunk in dump.split("\n--\n-- Name: ").skip(1) {
        let (header, body) = chunk.split_once('\n').expect("a header");
        let fields: Vec<&str> = header.split("; ").collect();
        let schema = fields[2].trim_start_matches("Schema: ").to_string();
        let body: Vec<&str> = body
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("SET ") && !line.starts_with("--"))
            .collect();
        let name = format!("{}; {}; {}", fields[0], fields[1], fields[3]);
        // Grants have one header.
        let text = all.entry(schema).or_default().entry(name).or_default();
        text.push_str(&body.join("\n"));
    }
    all
}

/// Without what a partitioned table must have otherwise: its partition key in keys, ONLY, and storage parameters, which are
/// its partitions'.
fn normal(text: &str, key: &str) -> String {
    let mut text = text
        .replace("ALTER TABLE ONLY ", "ALTER TABLE ")
        .replace(" ON ONLY ", " ON ");
    if text.starts_with("CREATE TABLE") {
        let end = text.rfind("\n)").expect("a list of columns") + 2;
        let behind = text[end..].find(';').expect("an end") + end;
        text.replace_range(end..behind, "");
    }
    // Which a partitioned table cannot note: preflight tells.
    let lines = text.lines().filter(|line| !line.contains(" CLUSTER ON "));
    text = lines.collect::<Vec<_>>().join("\n");
    if text.contains("UNIQUE") || text.contains("PRIMARY KEY") {
        text = text.replace(&format!(", {key})"), ")");
    }
    text
}

/// What `t` and what hangs on it dump as, before and after it is another table.
fn same_dump(shape: &Shape, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    let key = shape.arguments.split('\'').nth(1).expect("a key");
    let key = if key.chars().any(char::is_uppercase) {
        format!("\"{key}\"")
    } else {
        key.into()
    };
    let mut differences = vec![];
    for (name, text) in before {
        match after.get(name) {
            None => differences.push(format!("MISSING {name}\n{text}")),
            Some(now) if normal(now, &key) != normal(text, &key) => {
                differences.push(format!(
                    "BEFORE {}\nAFTER {}",
                    normal(text, &key),
                    normal(now, &key)
                ));
            }
            Some(_) => {}
        }
    }
    let is_of_t = |name: &str| {
        let words: Vec<&str> = name.split([';', ' ']).collect();
        words[0] == "t"
            || (["TABLE", "COLUMN"].contains(&words[0]) && (words[1] == "t" || words[1].starts_with("t.")))
    };
    for (name, text) in after
        .iter()
        .filter(|(name, _)| is_of_t(name) && !before.contains_key(*name))
    {
        if !text.contains("partition_router.sync(") {
            differences.push(format!("SURPLUS {name}\n{text}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        shape.name,
        differences.join("\n")
    );
}

/// What a partition has of its own, and what it has not from the root.
const LEAF: &[&str] = &[
    "SELECT concat_ws('|', attname, format_type(atttypid, atttypmod), attnotnull, attstorage, attcompression, attcollation,
        attgenerated, attstattarget, (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(attoptions) o WHERE o LIKE 'n_distinct%'))
     FROM pg_attribute WHERE attrelid = $T AND attnum > 0 AND NOT attisdropped ORDER BY attname",
    "SELECT concat_ws('|', c.reloptions, t.reloptions, c.reltablespace, c.relowner, c.relreplident)
     FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = $T",
    "SELECT concat_ws('|', tgname, tgenabled) FROM pg_trigger WHERE tgrelid = $T AND NOT tgisinternal AND tgname NOT LIKE 'sync%'
     AND tgtype & 1 = 1 ORDER BY tgname",
    "SELECT concat_ws('|', conname, convalidated, pg_get_constraintdef(oid)) FROM pg_constraint k
     WHERE conrelid = $T AND contype IN ('c', 'f')
       AND NOT EXISTS (SELECT FROM pg_constraint whole WHERE whole.oid = k.conparentid AND whole.conrelid = k.conrelid)
     ORDER BY conname",
    "SELECT concat_ws('|', c.reltablespace, c.reloptions, am.amname, i.indisreplident, i.indimmediate,
        pg_get_expr(i.indpred, i.indrelid), (SELECT string_agg(concat_ws(' ', a.attname, a.attstattarget), ',' ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget > -1)) AS d
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam WHERE i.indrelid = $T ORDER BY d",
];

fn same_leaf(client: &mut Client, shape: &Shape) {
    let leaf: String = one(
        client,
        &format!(
            "SELECT min(inhrelid)::regclass::text FROM pg_inherits WHERE inhparent = '{}'::regclass",
            shape.table()
        ),
    );
    for query in LEAF {
        let of = |table: &str| query.replace("$T", &format!("'{table}'::regclass"));
        let mut legacy = texts(client, &of(&format!("{}.t_legacy", shape.schema)));
        let mut twin = texts(client, &of(&leaf));
        legacy.sort();
        twin.sort();
        assert_eq!(twin, legacy, "{}: {query}", shape.name);
    }
}

#[test]
fn the_twin_of_every_shape_dumps_as_its_legacy_does() {
    let (database, mut client) = world("shapes");
    let shapes = shapes();
    for shape in &shapes {
        shape.make(&mut client);
    }
    let text_before = database.schema_dump(&[]);
    for shape in &shapes {
        shape.call(&mut client, "CALL partition_router.migrate($t, $how)");
        shape.call(&mut client, "CALL partition_router.switchover($t)");
    }
    let (before, after) = (objects(&text_before), objects(&database.schema_dump(&[])));
    let mut failed = vec![];
    for shape in &shapes {
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let publications =
                |all: &BTreeMap<String, BTreeMap<String, String>>| -> BTreeMap<String, String> {
                    all.get("-")
                        .into_iter()
                        .flatten()
                        .filter(|(name, _)| name.starts_with(&format!("{}_", shape.schema)))
                        .map(|(name, text)| (name.clone(), text.clone()))
                        .collect()
                };
            same_dump(shape, &before[&shape.schema], &after[&shape.schema]);
            same_dump(shape, &publications(&before), &publications(&after));
            same_leaf(&mut client, shape);
        }));
        if compared.is_err() {
            failed.push(shape.name.as_str());
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

fn assert_same_text(before: &str, after: &str) {
    let first = before.lines().zip(after.lines()).find(|(a, b)| a != b);
    assert!(before == after, "the dumps differ, first in {first:#?}");
}

#[test]
fn abandon_in_every_phase_leaves_every_shape_as_it_was() {
    let (database, mut client) = world("abandoned");
    let shapes = shapes();
    for shape in &shapes {
        shape.make(&mut client);
    }
    let before = database.schema_dump(&[]);
    const TWIN: &str = "SELECT partition_router.create_twin($t, $how)";
    const SYNC: &str = "SELECT partition_router.start_sync($t)";
    const MIGRATE: &str = "CALL partition_router.migrate($t, $how)";
    const THERE: &str = "CALL partition_router.switchover($t)";
    const BACK: &str = "CALL partition_router.rollback($t)";
    // The calls, the stage up to which the backfill then goes on, and the phase that this is.
    let phases: [(&[&str], &str, &str); 9] = [
        (&[TWIN], "", "prepared"),
        (&[TWIN, SYNC], "", "copying"),
        (&[TWIN, SYNC], "copy", "copying"),
        (&[TWIN, SYNC], "drain", "copying"),
        (&[TWIN, SYNC], "flip", "copying"),
        (&[TWIN, SYNC], "finish", "live"),
        (&[MIGRATE], "", "live"),
        (&[MIGRATE, THERE, BACK], "", "live"),
        (&[MIGRATE, THERE], "", "switched"),
    ];
    // Every shape in every phase takes minutes; else every second one is in one phase, and which is another one each hour.
    let rounds = if is_stress() { phases.len() } else { 1 };
    let first = clock_seed() as usize / 3600;
    let taken: Vec<&Shape> = shapes
        .iter()
        .enumerate()
        .filter(|(number, _)| is_stress() || (number + first).is_multiple_of(2))
        .map(|(_, shape)| shape)
        .collect();
    for round in first..first + rounds {
        println!("round {round}");
        for (number, shape) in taken.iter().enumerate() {
            let (calls, stage, phase) = phases[(number + round) % phases.len()];
            for call in calls {
                shape.call(&mut client, call);
            }
            shape.go_on_to(&mut client, stage);
            let now = format!(
                "SELECT phase FROM partition_router.status WHERE '{}'::regclass IN (legacy, twin)",
                shape.table()
            );
            assert_eq!(one::<String>(&mut client, &now), phase, "{}", shape.name);
        }
        assert!(database.schema_dump(&[]) != before);
        for shape in &taken {
            shape.call(&mut client, "SELECT partition_router.abandon($t)");
        }
        assert_same_text(&before, &database.schema_dump(&[]));
    }
    println!(
        "abandoned: {} shapes, each in {rounds} of {} phases and stages",
        taken.len(),
        phases.len()
    );
}
