//! What must hold at the end of a seed, told by plain SQL and amcheck, not by the extension alone.

use crate::world::Shape;
use postgres::{Client, Row};

/// The query for the rows in which both sides differ, a few of them.
pub fn different_rows(shape: &Shape) -> String {
    let (legacy, twin, columns) = (shape.table, shape.twin(), shape.columns());
    let row = |side: &str| {
        let columns: Vec<_> = columns.split(", ").map(|c| format!("{side}.{c}")).collect();
        format!("ROW({})", columns.join(", "))
    };
    format!(
        "SELECT format('legacy %s, twin %s', left({0}::text, 200), left({1}::text, 200))
         FROM (SELECT {columns} FROM {legacy}) l FULL JOIN (SELECT {columns} FROM {twin}) t ON l.id = t.id AND l.k = t.k
         WHERE l.id IS NULL OR t.id IS NULL OR record_image_ne({0}, {1}) LIMIT 5",
        row("l"),
        row("t")
    )
}

pub fn texts_of(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.get(0)).collect()
}

fn texts(client: &mut Client, query: &str) -> Result<Vec<String>, String> {
    let rows = client.query(query, &[]).map_err(|e| format!("{query}: {e:?}"))?;
    Ok(texts_of(&rows))
}

fn nothing(client: &mut Client, what: &str, query: &str) -> Result<(), String> {
    match texts(client, query)? {
        found if found.is_empty() => Ok(()),
        found => Err(format!("{what}: {found:?}")),
    }
}

/// Both sides hold the same rows, as plain SQL says.
pub fn equal(client: &mut Client, shape: &Shape) -> Result<(), String> {
    nothing(client, "the sides differ", &different_rows(shape))?;
    let (legacy, twin) = (shape.table, shape.twin());
    nothing(
        client,
        "the sides have different numbers of rows",
        &format!(
            "SELECT format('%s and %s', l, t) FROM (SELECT count(*) AS l FROM {legacy}) l, (SELECT count(*) AS t FROM {twin}) t
             WHERE l <> t"
        ),
    )
}

/// Both sides hold the same rows, as `verify` says.
pub fn verified(client: &mut Client, shape: &Shape) -> Result<(), String> {
    nothing(
        client,
        "verify found a difference",
        &format!(
            "SELECT format('%s: %s and %s rows', partition, legacy_rows, twin_rows)
             FROM partition_router.verify('{}', 'rows') WHERE NOT matches",
            shape.table
        ),
    )
}

/// All that must hold when a pair is live and nobody writes.
pub fn at_the_end(client: &mut Client, shape: &Shape) -> Result<(), String> {
    equal(client, shape)?;
    verified(client, shape)?;
    indexes_agree(client, shape)?;
    finished(client, shape)
}

/// Every index of both sides is valid and agrees with a scan of its table.
fn indexes_agree(client: &mut Client, shape: &Shape) -> Result<(), String> {
    let tables = format!(
        "(SELECT '{}'::regclass UNION SELECT relid FROM pg_partition_tree('{}'))",
        shape.table,
        shape.twin()
    );
    nothing(
        client,
        "indexes that are not valid",
        &format!(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid IN {tables} AND NOT indisvalid"
        ),
    )?;
    client
        .batch_execute(&format!(
            "SELECT bt_index_check(i.indexrelid, heapallindexed => true)
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
             WHERE i.indrelid IN {tables} AND c.relkind = 'i' AND a.amname = 'btree'"
        ))
        .map_err(|e| format!("amcheck: {e:?}"))?;
    nothing(
        client,
        "partitions with other indexes than their root",
        &format!(
            "SELECT t.relid::text FROM pg_partition_tree('{0}') t
             WHERE t.isleaf AND (SELECT count(*) FROM pg_index WHERE indrelid = t.relid)
                 <> (SELECT count(*) FROM pg_index WHERE indrelid = '{1}'::regclass)",
            shape.twin(),
            shape.table
        ),
    )
}

/// Nothing is left of the copy, and nothing is missing.
fn finished(client: &mut Client, shape: &Shape) -> Result<(), String> {
    let (legacy, twin) = (shape.table, shape.twin());
    nothing(
        client,
        "the pair is not live and done",
        &format!(
            "SELECT format('%s, %s', p.phase, s.stage) FROM partition_router.pair p
             LEFT JOIN partition_router.copy_state s ON s.pair_id = p.id
             WHERE p.legacy = '{legacy}'::regclass AND (p.phase <> 'live' OR COALESCE(s.stage, 'done') <> 'done')
             UNION ALL SELECT 'no pair' WHERE NOT EXISTS
                 (SELECT FROM partition_router.pair WHERE legacy = '{legacy}'::regclass)"
        ),
    )?;
    nothing(
        client,
        "change logs are left",
        "SELECT c.relname::text FROM pg_class c WHERE c.relname LIKE 'change\\_log\\_%' AND NOT EXISTS
             (SELECT FROM partition_router.pair p WHERE p.phase = 'copying' AND c.relname = 'change_log_' || p.id)",
    )?;
    nothing(
        client,
        "foreign keys are missing or not valid",
        &format!(
            "SELECT format('%s of %s', count(k), t.relid) FROM pg_partition_tree('{twin}') t
             LEFT JOIN pg_constraint k ON k.conrelid = t.relid AND k.contype = 'f' AND k.convalidated
             GROUP BY t.relid
             HAVING count(k) <> (SELECT count(*) FROM pg_constraint WHERE conrelid = '{legacy}'::regclass AND contype = 'f')"
        ),
    )?;
    nothing(
        client,
        "health fails",
        &format!(
            "SELECT \"check\" || ': ' || message FROM partition_router.health
             WHERE status = 'fail' AND relation IN ('{legacy}', '{twin}')"
        ),
    )?;
    gone_from_transactions(client)
}

fn gone_from_transactions(client: &mut Client) -> Result<(), String> {
    nothing(
        client,
        "prepared transactions are left",
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
    )
}

/// After `abandon` the legacy is alone again.
pub fn alone(client: &mut Client, shape: &Shape) -> Result<(), String> {
    let (legacy, twin) = (shape.table, shape.twin());
    nothing(
        client,
        "something is left of the pair",
        &format!(
            "SELECT 'pair' FROM partition_router.pair
             UNION ALL SELECT 'copy state' FROM partition_router.copy_state
             UNION ALL SELECT 'policy' FROM partition_router.policy
             UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = '{legacy}'::regclass AND tgname LIKE 'sync\\_%'
             UNION ALL SELECT 'table ' || relname FROM pg_class
                 WHERE relname LIKE 'change\\_log\\_%' OR relname = '{twin}' OR relname ~ '^{legacy}_(\\d|default|r\\d)'"
        ),
    )
}

/// As [`equal`], in one statement, so that it is exact while others write.
pub fn equal_now(client: &mut Client, shape: &Shape) -> Result<(), String> {
    nothing(client, "the sides differ", &different_rows(shape))
}

/// Files of the database that belong to no relation: PostgreSQL leaves those that a transaction had made when its process
/// was killed.
pub fn files_without_relation(client: &mut Client) -> Result<u64, String> {
    let query = "SELECT f FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database WHERE datname = current_database())) f
         WHERE f ~ '^[0-9]+$' AND pg_filenode_relation(0, f::oid) IS NULL";
    Ok(texts(client, query)?.len() as u64)
}
