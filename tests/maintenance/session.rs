//! A session that keeps the notices it gets, and runs statements one by one: CALL must stand alone.

use crate::common::Database;
use postgres::Client;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

pub struct Session {
    client: Client,
    notices: Receiver<String>,
    database: Arc<Database>,
}

impl Session {
    /// A session on a new database.
    pub fn new(test: &str) -> Session {
        Session::on(Arc::new(Database::new(test)))
    }

    /// Another session on the same database.
    pub fn another(&self) -> Session {
        Session::on(Arc::clone(&self.database))
    }

    /// A session on a database that is there.
    pub fn on(database: Arc<Database>) -> Session {
        let (client, notices) = database.connect_hearing();
        Session {
            client,
            notices,
            database,
        }
    }

    #[track_caller]
    pub fn run(&mut self, statements: &str) {
        for statement in split(statements) {
            if let Err(error) = self.client.batch_execute(&statement) {
                panic!("{statement}: {error:?}");
            }
        }
    }

    /// The only value of a query, which is text.
    #[track_caller]
    pub fn one(&mut self, query: &str) -> String {
        self.client
            .query_one(query, &[])
            .unwrap_or_else(|e| panic!("{query}: {e:?}"))
            .get(0)
    }

    /// The only column of a query, which is text.
    #[track_caller]
    pub fn column(&mut self, query: &str) -> Vec<String> {
        let rows = self
            .client
            .query(query, &[])
            .unwrap_or_else(|e| panic!("{query}: {e:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The SQLSTATE that a statement fails with; empty when it does not.
    pub fn sqlstate(&mut self, statement: &str) -> String {
        let error = self.client.batch_execute(statement).err();
        error
            .and_then(|e| e.code().map(|code| code.code().to_string()))
            .unwrap_or_default()
    }

    /// The notices since the last call.
    pub fn notices(&mut self) -> Vec<String> {
        self.notices.try_iter().collect()
    }
}

/// Statements by their semicolons, but for those in quotes. `$$` is the only dollar quote.
fn split(statements: &str) -> Vec<String> {
    let (mut parts, mut within, mut previous) = (vec![String::new()], None, ' ');
    for c in statements.chars() {
        let is_quote = matches!(c, '\'' | '"') || (c == '$' && previous == '$');
        match within {
            None if is_quote => within = Some(c),
            Some(open) if is_quote && open == c => within = None,
            _ => {}
        }
        if c == ';' && within.is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        previous = c;
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}
