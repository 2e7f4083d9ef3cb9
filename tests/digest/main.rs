//! The digest: what docs/parity.md says is computed again from that text alone, with what a client gets over the wire,
//! and what must have no influence has none.

#[path = "../common/mod.rs"]
mod common;
#[path = "../faults/kinds/mod.rs"]
#[allow(dead_code)]
mod kinds;

mod jsonb;
mod layouts;
mod spec;
mod values;
mod vectors;

use common::{Database, one, run};
use postgres::Client;

/// Each partition with its rows and digests of both sides, by its bounds: tables of any name can be compared.
fn digests(client: &mut Client, table: &str) -> String {
    one(
        client,
        &format!(
            "SELECT string_agg(concat_ws(' ', pg_get_expr(c.relpartbound, c.oid), legacy_rows, twin_rows, legacy_checksum,
                 twin_checksum, matches), E'\\n' ORDER BY pg_get_expr(c.relpartbound, c.oid))
             FROM partition_router.verify('{table}', 'checksum', full => true) v JOIN pg_class c ON c.oid = v.partition"
        ),
    )
}

fn database_with_types(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, &kinds::TYPES);
    (database, client)
}
