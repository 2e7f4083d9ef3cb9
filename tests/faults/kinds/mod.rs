//! The faults: what each makes of one value, table by table.

mod large;
mod nested;
mod numbers;
mod texts;
mod times;

/// A column, its value in the row `g`, and what its faults make of it. `$r` is a random number, another in each fault.
pub struct Column {
    pub name: &'static str,
    pub ty: &'static str,
    pub value: &'static str,
    pub faults: &'static [(&'static str, &'static str)],
}

const fn column(
    name: &'static str,
    ty: &'static str,
    value: &'static str,
    faults: &'static [(&'static str, &'static str)],
) -> Column {
    Column {
        name,
        ty,
        value,
        faults,
    }
}

pub struct Shape {
    pub table: &'static str,
    pub columns: &'static [Column],
    /// Two columns of one type, whose values may be swapped.
    pub same_type: Option<[&'static str; 2]>,
}

pub const SHAPES: [&Shape; 5] = [
    &numbers::NUMBERS,
    &texts::TEXTS,
    &times::TIMES,
    &nested::NESTED,
    &large::LARGE,
];

/// What the tables need. The casts without a function give every bit pattern to a float.
pub const TYPES: [&str; 14] = [
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION citext",
    "CREATE EXTENSION ltree",
    "CREATE EXTENSION cube",
    "CREATE CAST (xid8 AS float8) WITHOUT FUNCTION",
    "CREATE CAST (oid AS float4) WITHOUT FUNCTION",
    "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "CREATE DOMAIN cents AS bigint CHECK (VALUE >= 0)",
    "CREATE DOMAIN words AS text[] CHECK (cardinality(VALUE) < 9)",
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
    "CREATE TYPE place AS (street text, no numeric, at cents)",
    "CREATE TYPE trip AS (stops place[], m mood)",
    "CREATE TYPE span AS RANGE (SUBTYPE = numeric, MULTIRANGE_TYPE_NAME = spans)",
    "CREATE FUNCTION noise(seed bigint, blocks int) RETURNS text LANGUAGE sql IMMUTABLE AS
     $$SELECT string_agg(md5(seed || '/' || i), '') FROM generate_series(1, blocks) i$$",
];
