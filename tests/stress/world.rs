//! The tables of a seed: a legacy in one of many shapes, what points at it and what it points at, and its first rows.

use crate::common::{run, texts};
use postgres::Client;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// Parents that rows point at: accounts 1 to this.
pub const ACCOUNTS: i32 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Date,
    Timestamp,
    Integer,
    Hash,
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unique {
    None,
    Immediate,
    Deferrable,
    Deferred,
}

/// One pair of a seed.
#[derive(Debug, Clone)]
pub struct Shape {
    pub table: &'static str,
    pub kind: Kind,
    /// The first day of the data; the last ones are around today, so that few partitions do.
    base: String,
    days: Vec<String>,
    /// Whether the primary key has the partition key in it.
    pub key_in_primary: bool,
    /// What a foreign key to the accounts does when one goes.
    pub account_goes: Option<&'static str>,
    /// A table with a cascading foreign key to the legacy.
    pub children: bool,
    pub unique: Unique,
    /// A BEFORE trigger that changes NEW: fired twice for one change, it leaves different rows.
    pub changes_new: bool,
    /// An AFTER trigger that writes to the legacy again, inside the statement. Not beside a second unique key: see
    /// "What is not checked" in docs/reliability.md.
    pub echoes: bool,
    external: bool,
    other_columns: bool,
    pub truncates: bool,
    pub rows: i32,
}

impl Shape {
    pub fn random(table: &'static str, random: &mut ChaCha8Rng) -> Shape {
        let kinds = [Kind::Date, Kind::Timestamp, Kind::Integer, Kind::Hash, Kind::List];
        let uniques = [
            Unique::None,
            Unique::Immediate,
            Unique::Deferrable,
            Unique::Deferred,
        ];
        let children = random.random_bool(0.3);
        let unique = *uniques.choose(random).expect("there are some");
        Shape {
            table,
            kind: *kinds.choose(random).expect("there are kinds"),
            base: String::new(),
            days: vec![],
            key_in_primary: random.random_bool(0.2),
            account_goes: random.random_bool(0.6).then(|| {
                if random.random_bool(0.5) {
                    "CASCADE"
                } else {
                    "SET NULL"
                }
            }),
            children,
            unique,
            changes_new: random.random_bool(0.5),
            // Drawn always, so that a seed makes the same choices either way.
            echoes: random.random_bool(0.25)
                && (unique == Unique::None || std::env::var("PARTITION_ROUTER_ECHOES").is_ok()),
            external: random.random_bool(0.3),
            other_columns: random.random_bool(0.4),
            truncates: !children && random.random_bool(0.3),
            rows: random.random_range(500..1500),
        }
    }

    pub fn twin(&self) -> String {
        format!("{}_partitioned", self.table)
    }

    pub fn columns(&self) -> &'static str {
        "id, k, org, acct, amount, seen, slot, doc, total"
    }

    fn key_type(&self) -> &'static str {
        match self.kind {
            Kind::Date => "date",
            Kind::Timestamp => "timestamptz",
            Kind::Integer => "bigint",
            Kind::Hash => "int",
            Kind::List => "text",
        }
    }

    /// The partition key that belongs to a number from 0 to 139, as an SQL expression of `number`. From 110 on no row is
    /// there at first, so that some keys have no partition but the default; the last ones are infinite where that is.
    pub fn key(&self, number: &str) -> String {
        let base = &self.base;
        match self.kind {
            Kind::Date => {
                format!(
                    "(CASE WHEN {number} > 137 THEN date 'infinity' ELSE date '{base}' + ({number})::int END)"
                )
            }
            Kind::Timestamp => format!(
                "(CASE WHEN {number} > 137 THEN timestamptz '-infinity' ELSE timestamptz '{base}' + ({number}) * interval '1 day 7 minutes' END)"
            ),
            Kind::Integer => format!("(({number}) * 5)::bigint"),
            Kind::Hash => format!("({number})::int"),
            Kind::List => format!("('r' || ({number}) / 20)"),
        }
    }

    /// The key expression of a number that is known here.
    pub fn key_of(&self, number: i32) -> String {
        self.key(&number.to_string())
    }

    /// The same as text for COPY, for numbers below 137.
    pub fn key_text(&self, number: i32) -> String {
        match self.kind {
            Kind::Date | Kind::Timestamp => self.days[number as usize].clone(),
            Kind::Integer => (number * 5).to_string(),
            Kind::Hash => number.to_string(),
            Kind::List => format!("r{}", number / 20),
        }
    }

    /// What ON CONFLICT names on the legacy, or on the twin.
    pub fn conflict(&self, on_twin: bool) -> &'static str {
        if on_twin || self.key_in_primary {
            "(id, k)"
        } else {
            "(id)"
        }
    }

    /// The arguments of `migrate()` and `create_twin()`.
    pub fn request(&self) -> String {
        let strategy = match self.kind {
            Kind::Date | Kind::Timestamp => "'range', '1 month', premake => 1",
            Kind::Integer => "'range', '120', premake => 1",
            Kind::Hash => "'hash', partitions => 4",
            Kind::List => "'list'",
        };
        format!("'{}', 'k', {strategy}", self.table)
    }

    pub fn is_range(&self) -> bool {
        [Kind::Date, Kind::Timestamp, Kind::Integer].contains(&self.kind)
    }

    /// Makes the tables and fills them.
    pub fn create(&mut self, client: &mut Client) {
        self.days = texts(
            client,
            "SELECT (current_date - 110 + g)::text FROM generate_series(0, 140) g ORDER BY g",
        );
        self.base = self.days[0].clone();
        let (t, key_type) = (self.table, self.key_type());
        let primary = self.conflict(false);
        let account = match self.account_goes {
            Some(action) => format!("REFERENCES {t}_account ON UPDATE CASCADE ON DELETE {action}"),
            None => String::new(),
        };
        let (first, last) = if self.other_columns {
            ("gone int, ", ", late_gone text")
        } else {
            ("", "")
        };
        // Few rows in a block, so that the copy has several batches.
        run(
            client,
            &[
                &format!("CREATE TABLE {t}_account (id int PRIMARY KEY)"),
                &format!("INSERT INTO {t}_account SELECT generate_series(1, {ACCOUNTS})"),
                &format!(
                    "CREATE TABLE {t} ({first}id int NOT NULL, k {key_type} NOT NULL, org int NOT NULL, acct int {account},
                        amount int, seen int NOT NULL DEFAULT 0, slot int, doc text,
                        total bigint GENERATED ALWAYS AS (amount::bigint * 2) STORED{last},
                        PRIMARY KEY {primary}) WITH (fillfactor = 10)"
                ),
                &format!("CREATE INDEX ON {t} (org) WHERE amount > 500"),
                &format!("CREATE INDEX ON {t} (lower(substr(doc, 1, 20)), acct)"),
            ],
        );
        if self.external {
            run(
                client,
                &[&format!("ALTER TABLE {t} ALTER doc SET STORAGE EXTERNAL")],
            );
        }
        self.fill(client);
        self.constrain(client);
    }

    fn fill(&self, client: &mut Client) {
        let (t, rows, key) = (self.table, self.rows, self.key("g % 110"));
        run(
            client,
            &[&format!(
                "INSERT INTO {t} (id, k, org, acct, amount, slot, doc)
                 SELECT g, {key}, g % 13, 1 + g % {ACCOUNTS}, g, 100000 + g, repeat(md5(g::text), 1 + g % 4)
                 FROM generate_series(1, {rows}) g"
            )],
        );
        if self.other_columns {
            run(
                client,
                &[
                    &format!("ALTER TABLE {t} DROP COLUMN gone, DROP COLUMN late_gone"),
                    // A fast default: rows that are there do not hold it.
                    &format!("ALTER TABLE {t} DROP COLUMN seen, ADD COLUMN seen int NOT NULL DEFAULT 3"),
                ],
            );
        }
    }

    fn constrain(&self, client: &mut Client) {
        let t = self.table;
        let deferrable = match self.unique {
            Unique::None => None,
            Unique::Immediate => Some(""),
            Unique::Deferrable => Some("DEFERRABLE"),
            Unique::Deferred => Some("DEFERRABLE INITIALLY DEFERRED"),
        };
        if let Some(deferrable) = deferrable {
            run(
                client,
                &[&format!("ALTER TABLE {t} ADD UNIQUE (slot) {deferrable}")],
            );
        }
        if self.children && !self.key_in_primary {
            run(
                client,
                &[&format!(
                    "CREATE TABLE {t}_line (id int REFERENCES {t} ON UPDATE CASCADE ON DELETE CASCADE, note text)"
                )],
            );
        }
        if self.changes_new {
            run(
                client,
                &[
                    &format!(
                        "CREATE FUNCTION {t}_see() RETURNS trigger LANGUAGE plpgsql AS $$
                         BEGIN NEW.seen := COALESCE(NEW.seen, 0) + 1; RETURN NEW; END $$"
                    ),
                    &format!(
                        "CREATE TRIGGER see BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_see()"
                    ),
                ],
            );
        }
        if self.echoes {
            run(
                client,
                &[
                    &format!(
                        "CREATE FUNCTION {t}_echo() RETURNS trigger LANGUAGE plpgsql AS $$
                         BEGIN
                             IF pg_trigger_depth() < 2 THEN
                                 UPDATE {t} SET amount = COALESCE(amount, 0) + 7, org = org + 1
                                 WHERE id IN (NEW.id, NEW.id + 1);
                             END IF;
                             RETURN NULL;
                         END $$"
                    ),
                    &format!(
                        "CREATE TRIGGER echo AFTER UPDATE ON {t} FOR EACH ROW WHEN (NEW.org % 4 = 0)
                         EXECUTE FUNCTION {t}_echo()"
                    ),
                ],
            );
        }
    }

    pub fn make_range(&mut self) {
        self.kind = Kind::Date;
    }

    pub fn drop_triggers(&mut self) {
        self.changes_new = false;
        self.echoes = false;
    }

    pub fn has_lines(&self) -> bool {
        self.children && !self.key_in_primary
    }
}
