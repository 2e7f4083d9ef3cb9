//! Dumps are restored as they are: nothing is carried while both sides come back.

use super::Pair;

#[test]
fn a_dump_of_a_live_pair_is_restored_and_goes_on_carrying() {
    let mut pair = Pair::live("dump");
    pair.run(&[
        "ALTER TABLE a ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES parents",
        "CREATE INDEX ON a (n)",
        "ALTER TABLE a ADD CHECK (n > 0)",
    ]);
    let name = pair.database.name.clone();
    let file = std::env::temp_dir().join(format!("{name}.dump"));
    let file = file.to_str().expect("UTF-8");
    pair.database.program("pg_dump", &["-Fc", "-f", file, &name]);
    let restored = super::Database::new("restored");
    let client = restored.connect();
    let mut copy = Pair {
        database: restored,
        client,
    };
    copy.run(&["DROP EXTENSION partition_router"]);
    let target = copy.database.name.clone();
    copy.database
        .program("pg_restore", &["--exit-on-error", "-j", "2", "-d", &target, file]);
    copy.in_step();
    assert_eq!(copy.shape("a"), pair.shape("a"));
    copy.run(&[
        "ALTER TABLE a ADD COLUMN x int DEFAULT 3",
        "CREATE INDEX ON a_partitioned (x)",
    ]);
    copy.in_step();
    std::fs::remove_file(file).expect("the dump is removed");
}

#[test]
fn a_session_of_pg_restore_drops_and_makes_what_it_likes() {
    let mut pair = Pair::live("restoring");
    pair.run(&[
        "SET check_function_bodies = false",
        "SET row_security = off",
        "SELECT set_config('search_path', '', false)",
        "ALTER TABLE public.a ADD COLUMN x int",
        "ALTER TABLE public.a_partitioned ADD COLUMN x int",
        "DROP TABLE public.a",
    ]);
    // Neither of these settings alone makes a restore.
    let mut pair = Pair::live("not_restoring");
    pair.run(&[
        "SET check_function_bodies = false",
        "SET row_security = off",
        "ALTER TABLE a ADD COLUMN x int",
    ]);
    pair.in_step();
}

#[test]
fn the_event_triggers_belong_to_the_extension() {
    let mut pair = Pair::live("members");
    let name = pair.database.name.clone();
    let dump = pair.database.program("pg_dump", &["--schema-only", &name]);
    assert!(!dump.contains("EVENT TRIGGER"), "the extension brings them");
    assert_eq!(
        pair.one::<String>(
            "SELECT string_agg(evtname || ' ' || evtenabled::text || ' ' || (obj_description(oid, 'pg_event_trigger') <> ''),
                    ', ' ORDER BY evtname) FROM pg_event_trigger"
        ),
        "partition_router_ddl_drop A true, partition_router_ddl_end A true, partition_router_ddl_start A true"
    );
}
