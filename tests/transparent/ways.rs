//! The ways in which a client can run a query, and what it gets.

use crate::grammar::Generated;
use crate::marked::ROUTED;
use crate::world::Ty;
use postgres::types::{FromSql, ToSql, Type};
use postgres::{Client, Error, SimpleQueryMessage};
use std::error::Error as StdError;
use std::io::Read;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Simple,
    /// Parse, Bind, Execute with binary results.
    Extended,
    /// PREPARE, and EXECUTE with each plan cache mode.
    Prepared,
    /// DECLARE SCROLL CURSOR, and FETCH in pieces, forward and back.
    Cursor,
    Copy,
    /// RETURN QUERY in PL/pgSQL.
    PlPgSql,
    /// A function in SQL.
    SqlFunction,
    View,
    CreateTableAs,
    /// One session, unrouted and routed by turns, with prepared statements.
    Flipped,
}

/// What a client gets: rows in no order, or an SQLSTATE.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Rows(Vec<Vec<Option<Vec<u8>>>>),
    Error(String),
}

/// A value as it came over the wire.
pub struct Raw(pub Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(Some(raw.to_vec())))
    }

    fn from_sql_null(_: &Type) -> Result<Raw, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

type Rows = Vec<Vec<Option<Vec<u8>>>>;

impl Answer {
    pub fn is_denied(&self) -> bool {
        matches!(self, Answer::Error(code) if code == "42501")
    }

    /// No row, or the few that aggregates make of none, in each of the ways that ask several times.
    pub fn is_nothing(&self) -> bool {
        match self {
            Answer::Rows(rows) => rows.len() <= 4,
            Answer::Error(_) => false,
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Answer::Error(_))
    }

    fn of(result: Result<Rows, Error>) -> Answer {
        match result {
            Ok(mut rows) => {
                rows.sort();
                Answer::Rows(rows)
            }
            Err(error) => Answer::Error(match error.as_db_error() {
                Some(db) => db.code().code().to_string(),
                None => format!("{error:?}"),
            }),
        }
    }

    /// What is here and not in `other`, to be read.
    pub fn brief(&self, other: &Answer) -> String {
        match (self, other) {
            (Answer::Rows(rows), Answer::Rows(others)) => {
                let text = |row: &Vec<Option<Vec<u8>>>| -> String {
                    let values: Vec<_> = row
                        .iter()
                        .map(|v| match v {
                            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                            None => "NULL".into(),
                        })
                        .collect();
                    values.join(" | ")
                };
                let only: Vec<_> = rows
                    .iter()
                    .filter(|r| !others.contains(r))
                    .take(3)
                    .map(text)
                    .collect();
                format!("{} rows, only here {only:?}", rows.len())
            }
            (Answer::Rows(rows), _) => format!("{} rows", rows.len()),
            (Answer::Error(code), _) => format!("error {code}"),
        }
    }
}

impl Way {
    pub const ALL: [Way; 12] = [
        Way::Simple,
        Way::Simple,
        Way::Simple,
        Way::Extended,
        Way::Prepared,
        Way::Cursor,
        Way::Copy,
        Way::PlPgSql,
        Way::SqlFunction,
        Way::View,
        Way::CreateTableAs,
        Way::Flipped,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Way::Simple => "simple",
            Way::Extended => "extended",
            Way::Prepared => "prepared",
            Way::Cursor => "cursor",
            Way::Copy => "COPY",
            Way::PlPgSql => "PL/pgSQL",
            Way::SqlFunction => "SQL function",
            Way::View => "view",
            Way::CreateTableAs => "CREATE TABLE AS",
            Way::Flipped => "flipped",
        }
    }

    pub fn takes_parameters(self) -> bool {
        matches!(self, Way::Extended | Way::Prepared | Way::Flipped)
    }
}

/// The rows of statements of the simple protocol, all results together.
fn simple(client: &mut Client, statement: &str) -> Result<Rows, Error> {
    let mut rows = vec![];
    for message in client.simple_query(statement)? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|n| row.get(n).map(|v| v.as_bytes().to_vec()))
                    .collect(),
            );
        }
    }
    Ok(rows)
}

/// Runs a query in one of the ways. What it made is gone afterwards.
pub fn ask(client: &mut Client, query: &Generated, way: Way) -> Answer {
    let sql = &query.sql;
    let in_transaction = |client: &mut Client, statements: &str| {
        let result = simple(client, &format!("BEGIN; {statements}"));
        client.batch_execute("ROLLBACK").expect("a transaction ends");
        Answer::of(result)
    };
    match way {
        Way::Simple => Answer::of(simple(client, sql)),
        Way::Extended => extended(client, query),
        Way::Prepared | Way::Flipped => {
            let mut rows = vec![];
            for mode in ["force_custom_plan", "force_generic_plan"] {
                match prepared(client, query, mode) {
                    Answer::Rows(more) => rows.extend(more),
                    error => return error,
                }
            }
            Answer::Rows(rows)
        }
        Way::Cursor => in_transaction(
            client,
            &format!(
                "DECLARE c SCROLL CURSOR FOR {sql}; FETCH 7 FROM c; FETCH ALL FROM c; FETCH BACKWARD ALL FROM c"
            ),
        ),
        Way::Copy => copy(client, sql),
        Way::PlPgSql => in_transaction(
            client,
            &format!(
                "CREATE FUNCTION pg_temp.asked() RETURNS SETOF text LANGUAGE plpgsql AS
                 $asked$BEGIN RETURN QUERY SELECT q::text FROM ({sql}) q; END$asked$;
                 SELECT pg_temp.asked(); SELECT pg_temp.asked()"
            ),
        ),
        Way::SqlFunction => in_transaction(
            client,
            &format!(
                "CREATE FUNCTION pg_temp.asked() RETURNS SETOF text LANGUAGE sql STABLE AS
                 $asked$SELECT q::text FROM ({sql}) q$asked$; SELECT * FROM pg_temp.asked()"
            ),
        ),
        Way::View => in_transaction(
            client,
            &format!("CREATE TEMP VIEW asked AS {sql}; SELECT * FROM asked; SELECT count(*) FROM asked"),
        ),
        Way::CreateTableAs => in_transaction(
            client,
            &format!("CREATE TEMP TABLE asked AS {sql}; SELECT * FROM asked"),
        ),
    }
}

/// A prepared statement asked unrouted and routed by turns: both answers.
pub fn flipped(client: &mut Client, query: &Generated) -> (Answer, Answer) {
    let flip = |client: &mut Client, on: bool| {
        let switch = if on {
            ROUTED
        } else {
            "SET partition_router.transparent = off"
        };
        client.batch_execute(switch).expect("a setting is set");
    };
    flip(client, false);
    let name = match prepare(client, query) {
        Ok(execute) => execute,
        Err(error) => {
            flip(client, true);
            let routed = prepare(client, query).err();
            return (
                Answer::of(Err(error)),
                routed.map_or(Answer::Rows(vec![]), |e| Answer::of(Err(e))),
            );
        }
    };
    let mut answers = [vec![], vec![]];
    let mut errors = [None, None];
    for mode in ["force_custom_plan", "force_generic_plan"] {
        client
            .batch_execute(&format!("SET plan_cache_mode = {mode}"))
            .expect("a setting is set");
        for on in [false, true, true, false] {
            flip(client, on);
            match Answer::of(simple(client, &name)) {
                Answer::Rows(rows) => answers[usize::from(on)].extend(rows),
                error => errors[usize::from(on)] = Some(error),
            }
        }
    }
    client
        .batch_execute("DEALLOCATE asked; RESET plan_cache_mode")
        .expect("what was prepared goes");
    flip(client, true);
    let [plain, routed] = answers;
    let [plain_error, routed_error] = errors;
    (
        plain_error.unwrap_or(Answer::Rows(plain)),
        routed_error.unwrap_or(Answer::Rows(routed)),
    )
}

/// PREPARE; gives the EXECUTE.
fn prepare(client: &mut Client, query: &Generated) -> Result<String, Error> {
    let types: Vec<_> = query.parameters.iter().map(|(ty, _)| ty.sql()).collect();
    let values: Vec<_> = query
        .parameters
        .iter()
        .map(|(_, value)| format!("'{value}'"))
        .collect();
    let list = |of: &[String]| match of.len() {
        0 => String::new(),
        _ => format!("({})", of.join(", ")),
    };
    let types: Vec<String> = types.into_iter().map(String::from).collect();
    client.batch_execute(&format!("PREPARE asked{} AS {}", list(&types), query.sql))?;
    Ok(format!("EXECUTE asked{}", list(&values)))
}

fn prepared(client: &mut Client, query: &Generated, mode: &str) -> Answer {
    client
        .batch_execute(&format!("SET plan_cache_mode = {mode}"))
        .expect("a setting is set");
    let answer = match prepare(client, query) {
        Ok(execute) => {
            let answer = Answer::of(simple(client, &format!("{execute}; {execute}")));
            client.batch_execute("DEALLOCATE asked").expect("it was prepared");
            answer
        }
        Err(error) => Answer::of(Err(error)),
    };
    client
        .batch_execute("RESET plan_cache_mode")
        .expect("a setting is reset");
    answer
}

fn extended(client: &mut Client, query: &Generated) -> Answer {
    let result = (|| {
        let types: Vec<Type> = query
            .parameters
            .iter()
            .map(|(ty, _)| if *ty == Ty::Int { Type::INT8 } else { Type::TEXT })
            .collect();
        let statement = client.prepare_typed(&query.sql, &types)?;
        let values: Vec<Box<dyn ToSql + Sync>> = query
            .parameters
            .iter()
            .map(|(ty, value)| -> Box<dyn ToSql + Sync> {
                if *ty == Ty::Int {
                    Box::new(value.parse::<i64>().expect("a number"))
                } else {
                    Box::new(value.clone())
                }
            })
            .collect();
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| &**v).collect();
        let mut all = vec![];
        for _ in 0..2 {
            for row in client.query(&statement, &values)? {
                all.push((0..row.len()).map(|n| row.get::<_, Raw>(n).0).collect());
            }
        }
        Ok(all)
    })();
    Answer::of(result)
}

fn copy(client: &mut Client, sql: &str) -> Answer {
    let result = (|| {
        let mut bytes = vec![];
        let mut reader = client.copy_out(&format!("COPY ({sql}) TO STDOUT"))?;
        // An error in the middle of a COPY comes as an error of reading, and holds that of the server.
        if let Err(error) = reader.read_to_end(&mut bytes) {
            let inner = error.into_inner().expect("it holds the server's error");
            return Err(*inner.downcast::<Error>().expect("it is the client's error"));
        }
        Ok(bytes
            .split(|b| *b == b'\n')
            .map(|line| vec![Some(line.to_vec())])
            .collect())
    })();
    Answer::of(result)
}

/// The rows of a query, in no order.
pub fn rows_of(client: &mut Client, query: &str) -> Answer {
    Answer::of(simple(client, query))
}
