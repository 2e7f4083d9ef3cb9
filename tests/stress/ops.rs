//! The operations that the sessions draw from: what can be done to a table, on either side of its pair.

use crate::world::{ACCOUNTS, Shape};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The table that an operation writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Legacy,
    Twin,
    Leaf(String),
}

impl Target {
    pub fn name(&self, shape: &Shape) -> String {
        match self {
            Target::Legacy => shape.table.to_string(),
            Target::Twin => shape.twin(),
            Target::Leaf(name) => name.clone(),
        }
    }
}

/// How an operation reaches the server.
#[derive(Debug, Clone)]
pub enum Sql {
    Text(String),
    /// Kept by the session from the first use on; the parameters are an id, a number and a text.
    Prepared(String, i32, i32, String),
    /// From a file with these rows, whose name follows the statement.
    Copy(String, String),
}

#[derive(Debug, Clone)]
pub struct Operation {
    pub kind: &'static str,
    pub target: Target,
    pub sql: Sql,
}

impl Operation {
    pub fn text(&self) -> String {
        match &self.sql {
            Sql::Text(text) => text.clone(),
            Sql::Prepared(text, id, number, note) => {
                format!("{text} -- {id}, {number}, {} bytes", note.len())
            }
            Sql::Copy(text, rows) => format!("{text}\n{rows}"),
        }
    }
}

/// Every kind with its weight. The last ones are left out of transactions under `session_replication_role = replica`,
/// where foreign keys and deferrable constraints are not checked, on one table as on a pair.
const KINDS: [(&str, u32); 22] = [
    ("insert", 10),
    ("insert many", 6),
    ("update", 14),
    ("update no row", 1),
    ("delete", 9),
    ("change id", 5),
    ("change partition key", 9),
    ("change both keys", 5),
    ("toast", 6),
    ("lock", 3),
    ("copy", 5),
    ("prepared update", 8),
    ("swallowed error", 3),
    ("upsert", 9),
    ("insert or nothing", 5),
    ("prepared upsert", 4),
    ("merge", 6),
    ("move by CTE", 5),
    ("swap unique values", 5),
    ("account", 5),
    ("line", 3),
    ("truncate", 1),
];
const KINDS_OF_REPLICA: usize = 11;

/// Draws from a session's seed.
pub struct Generator<'a> {
    pub random: &'a mut ChaCha8Rng,
    pub shape: &'a Shape,
}

impl Generator<'_> {
    /// Most of the time one of the few rows that all sessions fight for.
    fn id(&mut self) -> i32 {
        if self.random.random_bool(0.6) {
            self.random.random_range(1..250)
        } else {
            self.random.random_range(1..self.shape.rows + 400)
        }
    }

    fn key(&mut self) -> String {
        let number = self.random.random_range(0..140);
        self.shape.key_of(number)
    }

    fn account(&mut self, replica: bool) -> String {
        if replica || self.random.random_bool(0.2) {
            "NULL".into()
        } else {
            self.random.random_range(1..=ACCOUNTS).to_string()
        }
    }

    /// Few values, so that they collide; most rows have none.
    fn slot(&mut self, replica: bool) -> String {
        if replica || self.random.random_bool(0.7) {
            "NULL".into()
        } else {
            self.random.random_range(1..2000).to_string()
        }
    }

    fn doc(&mut self) -> String {
        let length = match self.random.random_range(0..10) {
            0 => 0,
            1 => self.random.random_range(100..200),
            _ => self.random.random_range(1..6),
        };
        let word: u64 = self.random.random();
        format!("repeat(md5('{word}'), {length})")
    }

    /// `k, org, acct, amount, slot, doc` of a new row.
    fn values(&mut self, replica: bool) -> String {
        let (key, account, slot, doc) = (self.key(), self.account(replica), self.slot(replica), self.doc());
        let (org, amount) = (self.random.random_range(0..97), self.random.random_range(0..1000));
        format!("{key}, {org}, {account}, {amount}, {slot}, {doc}")
    }

    /// The next operation on `target`; in a transaction as a `replica` only what checks no other table.
    pub fn next(&mut self, target: Target, replica: bool) -> Operation {
        let kinds = if replica {
            &KINDS[..KINDS_OF_REPLICA]
        } else {
            &KINDS[..]
        };
        let all: u32 = kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.random_range(0..all);
        let mut kind = kinds[0].0;
        for (name, weight) in kinds {
            if at < *weight {
                kind = name;
                break;
            }
            at -= weight;
        }
        // What a seed's shape has not.
        let kind = match kind {
            "truncate" if !self.shape.truncates || self.random.random_bool(0.7) => "update",
            "line" if !self.shape.has_lines() => "update",
            "account" if self.shape.account_goes.is_none() => "insert",
            kind => kind,
        };
        let target = if ["account", "line"].contains(&kind) {
            Target::Legacy
        } else {
            target
        };
        let table = target.name(self.shape);
        let sql = match kind {
            "copy" => self.copy(&table, replica),
            "prepared update" => {
                let statement = format!(
                    "UPDATE {table} SET amount = amount + $2::int, doc = $3::text, org = org + 1 WHERE id = $1::int"
                );
                self.prepared(statement)
            }
            "prepared upsert" => {
                let (key, conflict) = (self.shape.key("($1::int % 110)"), self.conflict(&target));
                let statement = format!(
                    "INSERT INTO {table} (id, k, org, amount, doc) VALUES ($1::int, {key}, 5, $2::int, $3::text)
                     ON CONFLICT {conflict} DO UPDATE SET amount = EXCLUDED.amount, doc = EXCLUDED.doc"
                );
                self.prepared(statement)
            }
            _ => Sql::Text(self.statement(kind, &table, &target, replica)),
        };
        Operation { kind, target, sql }
    }

    fn conflict(&self, target: &Target) -> &'static str {
        self.shape.conflict(*target != Target::Legacy)
    }

    fn prepared(&mut self, statement: String) -> Sql {
        let (id, number) = (self.id(), self.random.random_range(0..100));
        let length = if self.random.random_bool(0.1) { 9000 } else { 20 };
        Sql::Prepared(statement, id, number, "p".repeat(length))
    }

    fn copy(&mut self, table: &str, replica: bool) -> Sql {
        let mut rows = String::new();
        for _ in 0..self.random.random_range(1..8) {
            let (id, number) = (self.id(), self.random.random_range(0..110));
            let account = self.account(replica).replace("NULL", "\\N");
            rows.push_str(&format!(
                "{id}\t{}\t{}\t{account}\t{}\n",
                self.shape.key_text(number),
                number % 13,
                "c".repeat(number as usize)
            ));
        }
        Sql::Copy(format!("COPY {table} (id, k, org, acct, doc) FROM"), rows)
    }

    fn statement(&mut self, kind: &str, table: &str, target: &Target, replica: bool) -> String {
        let (id, other) = (self.id(), self.id());
        let few = self.random.random_range(1..10);
        let range = format!("id BETWEEN {id} AND {}", id + few);
        let columns = "id, k, org, acct, amount, slot, doc";
        let (key, values) = (self.key(), self.values(replica));
        let conflict = self.conflict(target);
        let t = self.shape.table;
        match kind {
            "insert" => format!("INSERT INTO {table} ({columns}) VALUES ({id}, {values})"),
            "insert many" => {
                let key = self.shape.key("((g * 7) % 120)");
                format!(
                    "INSERT INTO {table} (id, k, org, amount, doc)
                     SELECT g, {key}, g % 9, g, 'many' FROM generate_series({id}, {id} + {few}) g
                     WHERE NOT EXISTS (SELECT FROM {table} x WHERE x.id = g)"
                )
            }
            "update" => {
                format!("UPDATE {table} SET amount = amount + 1, doc = doc || '.', org = org + 1 WHERE {range}")
            }
            "update no row" => format!("UPDATE {table} SET amount = 0 WHERE id < 0"),
            "delete" => format!("DELETE FROM {table} WHERE {range}"),
            "change id" if self.random.random_bool(0.5) => {
                format!("UPDATE {table} SET id = {other} WHERE id = {id}")
            }
            "change id" => format!("UPDATE {table} SET id = id + 5000 WHERE {range}"),
            "change partition key" => format!("UPDATE {table} SET k = {key} WHERE {range}"),
            "change both keys" => {
                let key = self.shape.key("((id * 3) % 140)");
                format!("UPDATE {table} SET id = id + 1, k = {key}, amount = 1 WHERE id = {id}")
            }
            "toast" => format!(
                "UPDATE {table} SET doc = (SELECT string_agg(md5(id::text || g), '') FROM generate_series(1, {}) g) WHERE id IN ({id}, {other})",
                50 + few * 40
            ),
            "lock" => format!("SELECT FROM {table} WHERE {range} FOR UPDATE"),
            "swallowed error" => format!(
                "DO $$BEGIN
                     UPDATE {table} SET amount = -1 WHERE {range};
                     BEGIN
                         DELETE FROM {table} WHERE id = {other};
                         UPDATE {table} SET k = {key}, amount = 1 / 0 WHERE {range};
                         RAISE 'no row' USING ERRCODE = '22012';
                     EXCEPTION WHEN division_by_zero THEN
                         UPDATE {table} SET doc = 'caught' WHERE id = {other};
                     END;
                 END$$"
            ),
            "upsert" => {
                let set_key = if self.random.random_bool(0.4) { ", k = EXCLUDED.k" } else { "" };
                format!(
                    "INSERT INTO {table} ({columns}) VALUES ({id}, {values})
                     ON CONFLICT {conflict} DO UPDATE SET amount = EXCLUDED.amount, doc = 'upsert'{set_key}"
                )
            }
            "insert or nothing" => format!(
                "INSERT INTO {table} ({columns}) VALUES ({id}, {values}), ({other}, {values}) ON CONFLICT {conflict} DO NOTHING"
            ),
            "merge" => format!(
                "MERGE INTO {table} t USING (SELECT g AS id FROM generate_series({id}, {id} + {few}) g) s ON t.id = s.id
                 WHEN MATCHED AND t.id % 3 = 0 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET org = t.org + 1, doc = 'merged'{}
                 WHEN NOT MATCHED THEN INSERT ({columns}) VALUES (s.id, {key}, 1, NULL, 2, NULL, 'merged')",
                if self.random.random_bool(0.3) { format!(", k = {key}") } else { String::new() }
            ),
            "move by CTE" => format!(
                "WITH gone AS (DELETE FROM {table} WHERE {range} RETURNING *)
                 INSERT INTO {table} ({columns}) SELECT id + 3000, {key}, org, acct, amount, NULL, 'again' FROM gone"
            ),
            "swap unique values" => format!(
                "UPDATE {table} x SET slot = y.slot FROM {table} y
                 WHERE (x.id, y.id) IN (({id}, {other}), ({other}, {id})) AND x.slot IS NOT NULL AND y.slot IS NOT NULL"
            ),
            "account" => self.account_change(t),
            "line" => format!("INSERT INTO {t}_line SELECT id, 'line' FROM {t} WHERE {range}"),
            "truncate" => format!("TRUNCATE {table}"),
            other => unreachable!("{other} is no kind of operation"),
        }
    }

    fn account_change(&mut self, t: &str) -> String {
        let account = self.random.random_range(1..=ACCOUNTS);
        match self.random.random_range(0..5) {
            0 => format!("DELETE FROM {t}_account WHERE id = {account}"),
            1 => format!("UPDATE {t}_account SET id = id + 100 WHERE id = {account}"),
            2 => format!(
                "UPDATE {t} SET acct = {account} WHERE id BETWEEN 10 AND 20 AND EXISTS (SELECT FROM {t}_account a WHERE a.id = {account})"
            ),
            _ => format!("INSERT INTO {t}_account VALUES ({account}) ON CONFLICT DO NOTHING"),
        }
    }
}
