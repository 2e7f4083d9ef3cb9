//! What generated queries read: four pairs of all strategies, with dropped, late and generated columns, row security and
//! column privileges, and views and functions over them.

use crate::common::{Cluster, Database, run};
use postgres::Client;
use std::sync::Arc;

/// The type of an expression of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    Int,
    Num,
    Text,
    Bool,
    Time,
    Json,
    Array,
}

use Ty::{Array, Bool, Int, Json, Num, Text, Time};

impl Ty {
    /// What values of this type are cast to, so that both sides of a set operation agree.
    pub fn sql(self) -> &'static str {
        match self {
            Int => "bigint",
            Num => "numeric(14,2)",
            Text => "text",
            Bool => "boolean",
            Time => "timestamp",
            Json => "jsonb",
            Array => "int[]",
        }
    }
}

/// A table, view or function that a query may name.
#[derive(Debug)]
pub struct Relation {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Ty)],
    /// `id` is unique.
    pub has_key: bool,
    /// A whole row of it goes into functions that take `revenues`.
    pub is_revenues: bool,
    /// Reads a pair.
    pub routable: bool,
}

const REVENUES: &[(&str, Ty)] = &[
    ("id", Int),
    ("org", Int),
    ("at", Time),
    ("cents", Int),
    ("note", Text),
    ("paid", Bool),
    ("kind", Text),
    ("tags", Array),
    ("extra", Json),
    ("twice", Int),
    ("late", Int),
    ("later", Text),
];
const STAYS: &[(&str, Ty)] = &[
    ("id", Int),
    ("org", Int),
    ("guest", Text),
    ("nights", Int),
    ("rate", Num),
    ("at", Time),
];
const EVENTS: &[(&str, Ty)] = &[
    ("id", Int),
    ("kind", Text),
    ("org", Int),
    ("payload", Json),
    ("amount", Num),
];
const LEDGER: &[(&str, Ty)] = &[("id", Int), ("org", Int), ("delta", Int), ("memo", Text)];

const fn table(name: &'static str, columns: &'static [(&'static str, Ty)]) -> Relation {
    Relation {
        name,
        columns,
        has_key: true,
        is_revenues: false,
        routable: true,
    }
}

const fn derived(name: &'static str, columns: &'static [(&'static str, Ty)]) -> Relation {
    Relation {
        has_key: false,
        ..table(name, columns)
    }
}

/// The tables that belong to pairs.
pub const PAIRS: &[Relation] = &[
    Relation {
        is_revenues: true,
        ..table("revenues", REVENUES)
    },
    table("stays", STAYS),
    table("events", EVENTS),
    table("ledger", LEDGER),
];

/// Everything else.
pub const OTHERS: &[Relation] = &[
    Relation {
        routable: false,
        ..table("orgs", &[("id", Int), ("name", Text), ("region", Text)])
    },
    table(
        "v_revenues",
        &[
            ("id", Int),
            ("org", Int),
            ("at", Time),
            ("cents", Int),
            ("note", Text),
        ],
    ),
    table("v_barrier", REVENUES),
    table("v_nested", REVENUES),
    table("v_invoker", STAYS),
    derived(
        "v_joined",
        &[
            ("id", Int),
            ("org", Int),
            ("name", Text),
            ("cents", Int),
            ("nights", Int),
        ],
    ),
    derived("v_totals", &[("org", Int), ("total", Num), ("number", Int)]),
    derived("v_union", &[("id", Int), ("org", Int), ("amount", Num)]),
    derived("v_rows", &[("id", Int), ("whole", Text), ("doc", Json)]),
    table("v_clerk", &[("id", Int), ("org", Int), ("delta", Int)]),
    Relation {
        is_revenues: true,
        ..table("revenues_of(3)", REVENUES)
    },
    Relation {
        is_revenues: true,
        ..table("revenues_in_plpgsql(4)", REVENUES)
    },
    table("stays_as_definer(5)", STAYS),
];

/// Who asks: the owner, somebody who may read all, one with some columns, one who sees rows by policy.
pub const ROLES: &[&str] = &["postgres", "gen_reader", "gen_tenant", "gen_reader", "gen_clerk"];

const ROLES_SQL: &str = "DO $$BEGIN
    IF to_regrole('gen_reader') IS NULL THEN
        CREATE ROLE gen_reader; CREATE ROLE gen_clerk; CREATE ROLE gen_tenant;
    END IF; END$$";

const TABLES: &str = "
CREATE TABLE orgs (id int PRIMARY KEY, name text NOT NULL, region text);
INSERT INTO orgs SELECT g, 'org ' || g, CASE g % 3 WHEN 0 THEN 'north' WHEN 1 THEN 'south' END FROM generate_series(0, 14) g;
CREATE TABLE members (org int, member name);
INSERT INTO members SELECT g, 'gen_tenant' FROM generate_series(0, 6) g;

CREATE TABLE revenues (gone1 int DEFAULT 5, id int PRIMARY KEY, org int NOT NULL, gone2 text DEFAULT 'gone', at timestamp NOT NULL,
    cents bigint, note text, paid boolean, gone3 int, kind text, tags int[], extra jsonb,
    twice bigint GENERATED ALWAYS AS (cents * 2) STORED);
ALTER TABLE revenues DROP COLUMN gone1, DROP COLUMN gone2;
INSERT INTO revenues (id, org, at, cents, note, paid, kind, tags, extra)
    SELECT g, g % 12, timestamp '2026-01-01' + g * 37 % 170 * interval '1 day' + g % 24 * interval '1 hour', nullif(g * 7919 % 1000, 0),
        CASE WHEN g % 7 <> 0 THEN repeat(chr(97 + g % 5), g % 4) END, CASE g % 3 WHEN 0 THEN true WHEN 1 THEN false END,
        (ARRAY['rent', 'fee', 'tax', NULL])[1 + g % 4], ARRAY[g % 5, g % 3], jsonb_build_object('a', g % 6, 'b', ARRAY[g % 2])
    FROM generate_series(1, 180) g;
ALTER TABLE revenues ADD COLUMN late int DEFAULT 7, DROP COLUMN gone3;
INSERT INTO revenues (id, org, at, cents, late) VALUES (181, 3, '2026-03-03 03:03', 33, NULL), (182, 3, '2026-04-03 03:03', NULL, 8);

CREATE TABLE stays (id int, org int NOT NULL, guest text, nights int, rate numeric(12,2), at timestamp, PRIMARY KEY (id, org));
INSERT INTO stays SELECT g, g % 12, (ARRAY['ann', 'bob', NULL, 'zoe'])[1 + g % 4], g % 9, (g * 31 % 500)::numeric / 4,
    timestamp '2026-01-01' + g * interval '1 day' FROM generate_series(1, 120) g;

CREATE TABLE events (id int, kind text NOT NULL, org int, payload jsonb, amount numeric(12,2), PRIMARY KEY (id, kind));
INSERT INTO events SELECT g, (ARRAY['rent', 'fee', 'tax'])[1 + g % 3], nullif(g % 12, 5), jsonb_build_object('n', g % 4, 'deep', jsonb_build_object('x', g % 2)),
    CASE WHEN g % 5 <> 0 THEN g * 1.25 END FROM generate_series(1, 120) g;

CREATE TABLE ledger (id int PRIMARY KEY, org int NOT NULL, delta int NOT NULL, memo text);
INSERT INTO ledger SELECT g, g % 12, g * 13 % 40 - 20, 'memo ' || g % 8 FROM generate_series(1, 120) g;
";

const RIGHTS: &str = "
GRANT SELECT ON orgs, members, revenues, stays, events TO gen_reader, gen_tenant;
GRANT SELECT ON orgs, members, stays, revenues TO gen_clerk;
GRANT SELECT ON ledger TO gen_reader;
GRANT SELECT (id, org, delta) ON ledger TO gen_clerk;
GRANT SELECT (kind, org, id) ON events TO gen_clerk;
ALTER TABLE stays ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON stays TO gen_reader, gen_clerk USING (true);
CREATE POLICY by_setting ON stays TO gen_tenant USING (org = current_setting('app.org')::int);
CREATE POLICY but_not ON stays AS RESTRICTIVE TO gen_clerk USING (nights > 1);
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_member ON events USING (EXISTS (SELECT FROM members m WHERE m.org = events.org AND m.member = CURRENT_USER));
CREATE POLICY readers ON events TO gen_reader USING (kind <> 'tax');
";

const VIEWS: &str = "
CREATE VIEW v_revenues AS SELECT id, org, at, cents, note FROM revenues WHERE cents IS NOT NULL;
CREATE VIEW v_barrier WITH (security_barrier) AS SELECT * FROM revenues WHERE org < 8;
CREATE VIEW v_nested AS SELECT * FROM v_barrier WHERE paid IS NOT FALSE;
CREATE VIEW v_invoker WITH (security_invoker) AS SELECT * FROM stays WHERE nights > 0;
CREATE VIEW v_joined AS SELECT r.id, r.org, o.name, r.cents, s.nights FROM revenues r JOIN orgs o ON o.id = r.org LEFT JOIN stays s ON s.id = r.id;
CREATE VIEW v_totals AS SELECT org, sum(cents)::numeric(14,2) AS total, count(*) AS number FROM revenues GROUP BY org;
CREATE VIEW v_union AS SELECT id, org, cents::numeric(14,2) AS amount FROM revenues UNION ALL SELECT id, org, rate FROM stays;
CREATE VIEW v_rows AS SELECT r.id, r::text AS whole, to_jsonb(r) AS doc FROM revenues r;
CREATE VIEW v_clerk AS SELECT id, org, delta FROM ledger WHERE delta <> 0;
ALTER VIEW v_clerk OWNER TO gen_clerk;
CREATE FUNCTION revenues_of(int) RETURNS SETOF revenues LANGUAGE sql STABLE AS 'SELECT * FROM revenues WHERE org = $1';
CREATE FUNCTION revenues_in_plpgsql(int) RETURNS SETOF revenues LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN QUERY SELECT * FROM revenues WHERE org = $1; END$$;
CREATE FUNCTION stays_as_definer(int) RETURNS SETOF stays LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT * FROM stays WHERE org = $1';
CREATE FUNCTION total_of(bigint) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(cents)::bigint FROM revenues WHERE org = $1';
CREATE FUNCTION count_in_plpgsql(bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN (SELECT count(*) FROM revenues WHERE org = $1); END$$;
CREATE FUNCTION one_of(bigint) RETURNS revenues LANGUAGE sql STABLE AS 'SELECT r FROM revenues r WHERE id = $1';
CREATE FUNCTION describe(revenues) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT concat_ws('/', $1.id, $1.note, $1.late, $1.later)$$;
CREATE FUNCTION describe_in_plpgsql(r revenues) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN concat_ws('/', r.id, r.kind, r.twice, r.later); END$$;
GRANT SELECT ON v_revenues, v_barrier, v_nested, v_invoker, v_joined, v_totals, v_union, v_rows, v_clerk TO gen_reader, gen_clerk, gen_tenant;
";

/// A database with all of it, migrated and proven.
pub fn world(test: &str) -> Database {
    world_on(crate::server(), test)
}

/// The same, on a server of the caller's.
pub fn world_on(server: Arc<Cluster>, test: &str) -> Database {
    let database = Database::on(server, test);
    let mut client = database.connect();
    run(&mut client, &[ROLES_SQL, TABLES]);
    run(
        &mut client,
        &[
            "CALL partition_router.migrate('revenues', 'at')",
            "CALL partition_router.migrate('stays', 'org', 'hash', partitions => 3)",
            "CALL partition_router.migrate('events', 'kind', 'list')",
            "CALL partition_router.migrate('ledger', 'id', 'range', '50')",
            // The attributes of both sides have other numbers, and a column that the old rows do not hold.
            "ALTER TABLE revenues ADD COLUMN fleeting int DEFAULT 1",
            "ALTER TABLE revenues ADD COLUMN later text DEFAULT 'later'",
            "ALTER TABLE revenues DROP COLUMN fleeting",
            RIGHTS,
            VIEWS,
        ],
    );
    for pair in PAIRS {
        let verify = format!(
            "DO $$BEGIN IF (SELECT NOT bool_and(matches) FROM partition_router.verify('{}')) THEN RAISE 'differ'; END IF; END$$",
            pair.name
        );
        run(
            &mut client,
            &[&verify, &format!("ANALYZE {0}, {0}_partitioned", pair.name)],
        );
    }
    database
}

/// A session of a role, with what its policies look at.
pub fn become_role(client: &mut Client, role: &str) {
    run(client, &[&format!("SET app.org = '3'; SET ROLE {role}")]);
}
