//! The one way to run SQL. Rows come back as one `jsonb` column and are parsed into typed structs; values go in
//! as parameters, names through [`crate::ident`].

use crate::error::{Error, Result};
use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::spi::{Spi, SpiClient};
use serde::de::DeserializeOwned;

pub type Arg<'a> = DatumWithOid<'a>;

fn parse<T: DeserializeOwned>(table: pgrx::spi::SpiTupleTable<'_>) -> Result<Vec<T>> {
    let mut rows = Vec::with_capacity(table.len());
    for row in table {
        let value = row
            .get::<JsonB>(1)?
            .ok_or_else(|| Error::Internal("a row is null".into()))?;
        rows.push(serde_json::from_value(value.0)?);
    }
    Ok(rows)
}

/// The rows of a query whose only column is `jsonb`. Assigns no transaction id, so it also works on a standby.
pub fn rows<T: DeserializeOwned>(query: &str, args: &[Arg]) -> Result<Vec<T>> {
    Spi::connect(|client| parse(client.select(query, None, args)?))
}

/// The first row of a query whose only column is `jsonb`.
pub fn row<T: DeserializeOwned>(query: &str, args: &[Arg]) -> Result<Option<T>> {
    Spi::connect(|client| {
        let table = client.select(query, Some(1), args)?;
        Ok(parse(table)?.pop())
    })
}

/// Runs a statement that changes something; gives the number of rows that it processed.
pub fn execute(statement: &str, args: &[Arg]) -> Result<u64> {
    Spi::connect_mut(|client| Ok(client.update(statement, None, args)?.len() as u64))
}

/// Runs a statement that changes something and returns rows of one `jsonb` column.
pub fn execute_returning<T: DeserializeOwned>(statement: &str, args: &[Arg]) -> Result<Vec<T>> {
    Spi::connect_mut(|client: &mut SpiClient| parse(client.update(statement, None, args)?))
}
