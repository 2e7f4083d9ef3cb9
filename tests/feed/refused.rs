//! What has no feed, and who may not.

use super::common::{Database, one, run, sqlstate};
use super::{ENABLE, TABLE, live, taken};

#[test]
fn what_cannot_tell_of_every_change_is_refused() {
    let (_database, mut client) = live("unfit");
    let c = &mut client;
    run(
        c,
        &[
            "CREATE UNLOGGED TABLE u (id int)",
            "CREATE TEMP TABLE p (id int)",
            "CREATE VIEW v AS SELECT 1 AS id",
            "CREATE TABLE t (id int)",
        ],
    );
    let call = |relation: &str, rest: &str| {
        format!("SELECT partition_router.enable_change_feed({relation}, {rest})")
    };
    for (relation, rest, expected) in [
        ("'u'", "ARRAY['id']", "PR002"),
        ("'p'", "ARRAY['id']", "PR001"),
        ("'pg_class'", "ARRAY['oid']", "PR003"),
        ("'partition_router.pair'", "ARRAY['id']", "PR003"),
        ("'v'", "ARRAY['id']", "42809"),
        ("'revenues_2026_02'", "ARRAY['id']", "42809"),
        ("'t'", "ARRAY['nothing']", "42703"),
        ("'t'", "ARRAY['ctid']", "42703"),
        ("'t'", "'{}'", "22023"),
        ("'t'", "ARRAY['id', 'id']", "22023"),
        ("'t'", "ARRAY['id', NULL]", "22004"),
        ("'t'", "NULL", "22004"),
        ("NULL", "ARRAY['id']", "22004"),
        ("99999999", "ARRAY['id']", "42P01"),
        ("'t'", "ARRAY['id'], name => 'r'", "22023"),
        ("'t'", "ARRAY['id'], name => ''", "22023"),
        ("'t'", "ARRAY['id'], retention => '0'", "22023"),
        ("'t'", "ARRAY['id'], max_lag => '-1 s'", "22023"),
    ] {
        assert_eq!(sqlstate(c, &call(relation, rest)), expected, "{relation}, {rest}");
    }
    let has_infinite: bool = one(c, "SELECT current_setting('server_version_num')::int >= 170000");
    for argument in ["retention", "max_lag"] {
        assert_eq!(
            sqlstate(c, &call("'t'", &format!("ARRAY['id'], {argument} => 'infinity'"))),
            if has_infinite { "22023" } else { "22007" },
            "{argument}"
        );
    }
    for (statement, expected) in [
        ("SELECT partition_router.disable_change_feed('t')", "22023"),
        ("SELECT partition_router.take_changes(0)", "22023"),
        ("SELECT partition_router.take_changes(NULL)", "22004"),
        ("SELECT partition_router.change_feed()", "0A000"),
    ] {
        assert_eq!(sqlstate(c, statement), expected, "{statement}");
    }
    run(c, &[&call("'t'", "ARRAY['id'], dry_run => true")]);
    assert_eq!(taken(c), [] as [&str; 0]);
}

#[test]
fn only_the_owner_may_and_only_with_the_right_to_call() {
    let database = Database::new("owners");
    let mut client = database.connect();
    let c = &mut client;
    run(c, TABLE);
    run(
        c,
        &[
            "DROP ROLE IF EXISTS feed_stranger",
            "DROP ROLE IF EXISTS feed_owner",
            "CREATE ROLE feed_stranger LOGIN",
            "CREATE ROLE feed_owner LOGIN",
            "ALTER TABLE revenues OWNER TO feed_owner",
        ],
    );
    let disable = "SELECT partition_router.disable_change_feed('revenues')";
    let mut stranger = database.connect_as("feed_stranger");
    assert_eq!(sqlstate(&mut stranger, ENABLE), "42501");
    run(
        c,
        &["GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partition_router TO feed_stranger, feed_owner"],
    );
    assert_eq!(sqlstate(&mut stranger, ENABLE), "42501");
    let mut owner = database.connect_as("feed_owner");
    run(&mut owner, &[ENABLE]);
    assert_eq!(taken(c), ["r *"]);
    assert_eq!(sqlstate(&mut stranger, disable), "42501");
    run(&mut owner, &[disable]);
    drop((stranger, owner));
    run(
        c,
        &[
            "DROP OWNED BY feed_owner, feed_stranger CASCADE",
            "DROP ROLE feed_owner, feed_stranger",
        ],
    );
}
