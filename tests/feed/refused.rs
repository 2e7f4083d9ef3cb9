//! What has no feed, and who may not.

use super::common::{Database, one, run, sqlstate, texts};
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

const TAKE: &str = "SELECT feed || ' ' || COALESCE(array_to_string(key, ','), '*') FROM partition_router.take_changes() ORDER BY 1";

/// EXECUTE on `take_changes()` opens no feed: who takes keys may read them.
#[test]
fn changes_are_taken_by_who_may_read_the_keys() {
    let (database, mut client) = super::live("takers");
    let c = &mut client;
    run(
        c,
        &[
            "CREATE ROLE feed_taker LOGIN",
            "GRANT EXECUTE ON FUNCTION partition_router.take_changes(int, text) TO feed_taker",
            "CREATE TABLE other (id int PRIMARY KEY, secret text)",
            "SELECT partition_router.enable_change_feed('other', ARRAY['id', 'secret'], name => 'other')",
            "UPDATE revenues SET cents = 1 WHERE id = 7",
        ],
    );
    let mut session = database.connect_as("feed_taker");
    let t = &mut session;
    assert_eq!(sqlstate(t, TAKE), "42501");
    assert_eq!(
        sqlstate(t, "SELECT partition_router.take_changes(feed => 'r')"),
        "42501"
    );
    assert!(
        texts(
            t,
            "SELECT feed FROM partition_router.take_changes(feed => 'no such feed')"
        )
        .is_empty()
    );
    // Other columns are no keys, and one key column of two is not enough.
    run(
        c,
        &[
            "GRANT SELECT (cents) ON revenues, revenues_partitioned TO feed_taker",
            "GRANT SELECT (id) ON other TO feed_taker",
        ],
    );
    assert_eq!(sqlstate(t, TAKE), "42501");
    run(c, &["GRANT SELECT (id) ON revenues TO feed_taker"]);
    assert_eq!(texts(t, TAKE), ["r 7"]);
    assert_eq!(
        sqlstate(t, "SELECT partition_router.take_changes(feed => 'other')"),
        "42501"
    );
    // Row security may hide rows from him, whose keys he would be told.
    run(
        c,
        &[
            "ALTER TABLE revenues ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY few ON revenues USING (id < 50)",
            "UPDATE revenues SET cents = 2 WHERE id = 8",
        ],
    );
    assert_eq!(sqlstate(t, TAKE), "42501");
    run(c, &["ALTER ROLE feed_taker BYPASSRLS"]);
    assert_eq!(texts(t, TAKE), ["r 8"]);
    run(
        c,
        &[
            "ALTER ROLE feed_taker NOBYPASSRLS",
            "ALTER TABLE revenues DISABLE ROW LEVEL SECURITY",
        ],
    );
    // A member of the owner's role needs no grant.
    run(
        c,
        &[
            "CREATE ROLE feed_owning",
            "ALTER TABLE other OWNER TO feed_owning",
            "REVOKE ALL ON other FROM feed_owning",
            "GRANT feed_owning TO feed_taker",
        ],
    );
    assert_eq!(texts(t, TAKE), ["other *"]);
    run(c, &["REVOKE feed_owning FROM feed_taker"]);
    // What is left of a table that is gone says that, and no key.
    run(
        c,
        &["INSERT INTO other VALUES (1, 'a secret')", "DROP TABLE other"],
    );
    assert_eq!(texts(t, TAKE), ["other *", "other *"]);
    drop(session);
    run(
        c,
        &[
            "DROP OWNED BY feed_taker, feed_owning",
            "DROP ROLE feed_taker, feed_owning",
        ],
    );
}

/// Who may execute the trigger's function, as owners of partitioned tables with a feed do, writes to no feed by it.
#[test]
fn nobody_makes_the_trigger_of_a_feed_by_hand() {
    let (database, mut client) = super::live("forged");
    let c = &mut client;
    run(
        c,
        &[
            "CREATE ROLE feed_forger LOGIN",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO feed_forger",
            "GRANT CREATE ON SCHEMA public TO feed_forger",
            &format!("GRANT CREATE ON DATABASE \"{}\" TO feed_forger", database.name),
        ],
    );
    let mut session = database.connect_as("feed_forger");
    let f = &mut session;
    run(
        f,
        &[
            "CREATE TABLE mine (id int PRIMARY KEY)",
            "SET search_path = partition_router, public",
        ],
    );
    for forged in [
        "CREATE TRIGGER x AFTER INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION partition_router.change_feed('1', 'notify', 'id')",
        "CREATE OR REPLACE TRIGGER x AFTER INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION change_feed('1', 'notify', 'id')",
        "CREATE CONSTRAINT TRIGGER x AFTER INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION change_feed('1', 'notify', 'id')",
        "CREATE TRIGGER x AFTER TRUNCATE ON public.mine EXECUTE FUNCTION partition_router.change_feed('1', 'quiet')",
        "CREATE SCHEMA forged CREATE TABLE m (id int) CREATE TRIGGER x AFTER INSERT ON m FOR EACH ROW
             EXECUTE FUNCTION partition_router.change_feed('1', 'notify', 'id')",
        "DO $$BEGIN CREATE TRIGGER x AFTER INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION partition_router.change_feed('1', 'notify', 'id'); END$$",
    ] {
        assert_eq!(sqlstate(f, forged), "42501", "{forged}");
    }
    // What a dump sets at its head makes no difference.
    run(
        f,
        &[
            "SET check_function_bodies = off",
            "SET row_security = off",
            "SET search_path = ''",
        ],
    );
    let forged = "CREATE TRIGGER x AFTER INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION partition_router.change_feed('1', 'notify', 'id')";
    assert_eq!(sqlstate(f, forged), "42501");
    run(f, &["RESET ALL", "INSERT INTO mine VALUES (77)"]);
    // His own he lets the extension make.
    run(
        f,
        &[
            "SELECT partition_router.enable_change_feed('mine', ARRAY['id'], name => 'mine')",
            "INSERT INTO mine VALUES (78)",
        ],
    );
    assert_eq!(taken(c), ["mine 78", "mine *"]);
    drop(session);
    run(c, &["DROP OWNED BY feed_forger CASCADE", "DROP ROLE feed_forger"]);
}
