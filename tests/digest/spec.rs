//! docs/parity.md, written again: from the binary form of a value, as a client gets it, to the digest of rows.

use crate::jsonb;
use postgres::Client;
use postgres::types::{FromSql, Type as WireType};
use std::collections::HashMap;
use std::error::Error;

/// Of a composite value: name, type, and what it sent.
type Field<'a> = (&'a [u8], u32, Option<&'a [u8]>);

/// The bytes that the server sends for a value.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &WireType, raw: &'a [u8]) -> Result<Raw, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &WireType) -> bool {
        true
    }
}

enum Kind {
    Plain,
    Enum,
    Domain(u32),
    Array,
    /// Names and types of the fields.
    Composite(Vec<(String, u32)>),
    Range(u32),
    /// Of which range.
    Multirange(u32),
}

struct Type {
    name: String,
    kind: Kind,
    is_built_in: bool,
    has_send: bool,
}

/// What an aclitem is called here from PostgreSQL 16 on, where its rights have 8 bytes.
const WIDE_ACLITEM: &str = "aclitem of 16 bytes";

/// All types of a database.
pub struct Types(HashMap<u32, Type>);

impl Types {
    pub fn load(client: &mut Client) -> Types {
        let mut fields: HashMap<u32, Vec<(String, u32)>> = HashMap::new();
        let attributes = client
            .query(
                "SELECT c.reltype, a.attname::text, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                 WHERE c.reltype <> 0 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.reltype, a.attnum",
                &[],
            )
            .expect("the attributes can be read");
        for row in attributes {
            fields
                .entry(row.get(0))
                .or_default()
                .push((row.get(1), row.get(2)));
        }
        let types = client
            .query(
                "SELECT t.oid, CASE WHEN t.typname = 'aclitem' AND t.typlen = 16 THEN $1 ELSE t.typname::text END, t.typtype::text,
                        t.typbasetype, r.rngsubtype, m.rngtypid, t.typsubscript = 'array_subscript_handler'::regproc, t.oid < 16384, t.typsend <> 0
                 FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_range m ON m.rngmultitypid = t.oid",
                &[&WIDE_ACLITEM],
            )
            .expect("the types can be read");
        Types(
            types
                .iter()
                .map(|row| {
                    let oid: u32 = row.get(0);
                    let kind = match row.get::<_, &str>(2) {
                        "e" => Kind::Enum,
                        "d" => Kind::Domain(row.get(3)),
                        "c" => Kind::Composite(fields.remove(&oid).unwrap_or_default()),
                        "r" => Kind::Range(row.get(4)),
                        "m" => Kind::Multirange(row.get(5)),
                        _ if row.get(6) => Kind::Array,
                        _ => Kind::Plain,
                    };
                    let ty = Type {
                        name: row.get(1),
                        kind,
                        is_built_in: row.get(7),
                        has_send: row.get(8),
                    };
                    (oid, ty)
                })
                .collect(),
        )
    }

    fn get(&self, oid: u32) -> &Type {
        &self.0[&oid]
    }

    /// Writes a value down.
    fn value(&self, oid: u32, raw: &[u8], out: &mut Vec<u8>) {
        let ty = self.get(oid);
        match &ty.kind {
            Kind::Domain(base) => self.value(*base, raw, out),
            Kind::Enum => sized(raw, out),
            Kind::Array => self.array(raw, out),
            Kind::Composite(fields) => self.composite(fields, raw, out),
            Kind::Range(subtype) => self.range(*subtype, raw, out),
            Kind::Multirange(range) => {
                let mut wire = Wire(raw);
                let count = wire.u32();
                out.extend(count.to_le_bytes());
                for _ in 0..count {
                    let length = wire.u32() as usize;
                    self.value(*range, wire.bytes(length), out);
                }
            }
            Kind::Plain if ty.is_built_in => built_in(&ty.name, raw, out),
            Kind::Plain => sized(raw, out),
        }
    }

    fn array(&self, raw: &[u8], out: &mut Vec<u8>) {
        let mut wire = Wire(raw);
        let (dimensions, _, element) = (wire.u32(), wire.u32(), wire.u32());
        out.extend(dimensions.to_le_bytes());
        let mut elements = u32::from(dimensions > 0);
        for _ in 0..dimensions {
            let (length, lower) = (wire.u32(), wire.u32());
            elements *= length;
            out.extend(length.to_le_bytes());
            out.extend(lower.to_le_bytes());
        }
        for _ in 0..elements {
            match wire.sized() {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    self.value(element, value, out);
                }
            }
        }
    }

    fn composite(&self, fields: &[(String, u32)], raw: &[u8], out: &mut Vec<u8>) {
        let mut wire = Wire(raw);
        assert_eq!(wire.u32() as usize, fields.len());
        let mut values: Vec<Field> = fields
            .iter()
            .map(|(name, _)| {
                let ty = wire.u32();
                (name.as_bytes(), ty, wire.sized())
            })
            .collect();
        values.sort();
        self.named(values.iter().map(|(_, ty, value)| (*ty, *value)), out);
    }

    /// The number of bytes of a type of fixed length.
    fn length(&self, oid: u32) -> Option<usize> {
        let ty = self.get(oid);
        match ty.kind {
            Kind::Domain(base) => self.length(base),
            Kind::Plain if ty.is_built_in => fields(&ty.name).map(|fields| fields.iter().sum()),
            _ => None,
        }
    }

    /// A presence map, the values of fixed length with zeros for NULL, and the others that there are, in order.
    fn named<'a>(&self, values: impl Iterator<Item = (u32, Option<&'a [u8]>)>, out: &mut Vec<u8>) {
        let values: Vec<_> = values.collect();
        let mut map = vec![0u8; values.len().div_ceil(8)];
        for (i, (_, value)) in values.iter().enumerate() {
            if value.is_some() {
                map[i / 8] |= 1 << (i % 8);
            }
        }
        out.extend(map);
        for (ty, value) in &values {
            match (self.length(*ty), value) {
                (Some(_), Some(value)) => self.value(*ty, value, out),
                (Some(length), None) => out.extend(vec![0; length]),
                (None, _) => {}
            }
        }
        for (ty, value) in values {
            if let Some(value) = value
                && self.length(ty).is_none()
            {
                self.value(ty, value, out);
            }
        }
    }

    /// The wire has the same flags.
    fn range(&self, subtype: u32, raw: &[u8], out: &mut Vec<u8>) {
        let mut wire = Wire(raw);
        let flags = wire.bytes(1)[0];
        out.push(flags);
        let bounds = match flags {
            _ if flags & 1 != 0 => 0,
            _ => u32::from(flags & 8 == 0) + u32::from(flags & 16 == 0),
        };
        for _ in 0..bounds {
            let bound = wire.sized().expect("a bound is not NULL");
            self.value(subtype, bound, out);
        }
    }
}

/// Reads what the server sends: integers most significant byte first.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes(2).try_into().expect("two bytes"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().expect("four bytes"))
    }

    /// A length and so many bytes; None is NULL.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u32() as i32;
        (length >= 0).then(|| self.bytes(length as usize))
    }
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// The fields of a type of fixed length, each an integer or a float; None is one that is no such type.
fn fields(name: &str) -> Option<&'static [usize]> {
    Some(match name {
        "bool" | "char" => &[1],
        "int2" => &[2],
        "int4" | "float4" | "date" | "xid" | "cid" => &[4],
        "oid" | "regclass" | "regcollation" | "regconfig" | "regdictionary" | "regnamespace" | "regoper"
        | "regoperator" | "regproc" | "regprocedure" | "regrole" | "regtype" => &[4],
        "int8" | "float8" | "money" | "time" | "timestamp" | "timestamptz" | "xid8" | "pg_lsn" => &[8],
        "timetz" => &[8, 4],
        "interval" => &[8, 4, 4],
        "uuid" => &[1; 16],
        "macaddr" => &[1; 6],
        "macaddr8" => &[1; 8],
        "tid" => &[2; 3],
        "aclitem" => &[4; 3],
        WIDE_ACLITEM => &[4, 4, 8],
        "point" => &[8; 2],
        "line" | "circle" => &[8; 3],
        "lseg" | "box" => &[8; 4],
        _ => return None,
    })
}

fn built_in(name: &str, raw: &[u8], out: &mut Vec<u8>) {
    let mut wire = Wire(raw);
    if let Some(fields) = fields(name) {
        for width in fields {
            out.extend(wire.bytes(*width).iter().rev());
        }
        assert!(wire.0.is_empty(), "{name}: {raw:?}");
        return;
    }
    let mut value = vec![];
    match name {
        "bit" | "varbit" => {
            value.extend(wire.u32().to_le_bytes());
            value.extend(wire.0);
        }
        "inet" | "cidr" => {
            let [family, bits, _, _] = wire.bytes(4).try_into().expect("four bytes");
            value.extend([family, bits]);
            value.extend(wire.0);
        }
        "numeric" => {
            let (count, weight, sign, scale) = (wire.u16(), wire.u16() as i16, wire.u16(), wire.u16());
            let digits = (0..count).map(|_| wire.u16() as i16).collect();
            value = match sign {
                0 | 0x4000 => numeric(sign != 0, weight, scale, digits),
                special => special.to_le_bytes().to_vec(),
            };
        }
        "jsonb" => value = jsonb::stored(std::str::from_utf8(&raw[1..]).expect("jsonb is sent as text")),
        _ => value.extend(raw),
    }
    sized(&value, out);
}

/// A numeric that is a number: header and digits to the base of 10,000.
pub fn numeric(negative: bool, weight: i16, scale: u16, mut digits: Vec<i16>) -> Vec<u8> {
    let mut weight = weight;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    while digits.first() == Some(&0) {
        digits.remove(0);
        weight -= 1;
    }
    let negative = negative && !digits.is_empty();
    if digits.is_empty() {
        weight = 0;
    }
    let mut bytes = vec![];
    if scale <= 63 && (-64..=63).contains(&weight) {
        let header = 0x8000 | if negative { 0x2000 } else { 0 } | scale << 7 | (weight as u16 & 0x7f);
        bytes.extend(header.to_le_bytes());
    } else {
        bytes.extend((scale | if negative { 0x4000 } else { 0 }).to_le_bytes());
        bytes.extend(weight.to_le_bytes());
    }
    for digit in digits {
        bytes.extend(digit.to_le_bytes());
    }
    bytes
}

/// The digest of a row that was written down.
pub fn digest(row: &[u8]) -> u128 {
    let hash = xxhash_rust::xxh3::xxh3_128(row);
    let (lo, hi) = (hash as u64, (hash >> 64) as u64);
    let m = u128::from(lo ^ 0x9E37_79B9_7F4A_7C15) * u128::from(hi ^ 0xD1B5_4A32_D192_ED03);
    u128::from(lo ^ (m >> 64) as u64) + (u128::from(hi ^ m as u64) << 64)
}

/// An expression that sends an aclitem, which has no binary form. Rights are bits, INSERT the lowest.
fn aclitem(name: &str, is_wide: bool) -> String {
    let rights =
        "sum(1 << array_position(ARRAY['INSERT', 'SELECT', 'UPDATE', 'DELETE'], privilege_type) - 1)";
    let sent = match is_wide {
        true => format!("int8send({rights})"),
        false => format!("int4send({rights}::int)"),
    };
    format!(
        "CASE WHEN \"{name}\" IS NOT NULL THEN (SELECT int4send(max(grantee)::int8::int) || int4send(max(grantor)::int8::int) ||
{sent}
         FROM aclexplode(ARRAY[\"{name}\"])) END"
    )
}

/// Each row of a table, written down.
pub fn rows(client: &mut Client, types: &Types, table: &str) -> Vec<Vec<u8>> {
    let mut columns: Vec<(String, u32)> = client
        .query(
            "SELECT attname::text, atttypid FROM pg_attribute
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
            &[&table],
        )
        .expect("the columns can be read")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    columns.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    // Types without a binary form are sent as text, and so is xml, to which the wire may add its encoding.
    let list: Vec<String> = columns
        .iter()
        .map(|(name, ty)| {
            let ty = types.get(*ty);
            if ty.name == "aclitem" || ty.name == WIDE_ACLITEM {
                return aclitem(name, ty.name == WIDE_ACLITEM);
            }
            let cast = if ty.has_send && ty.name != "xml" {
                ""
            } else {
                "::text"
            };
            format!("\"{name}\"{cast}")
        })
        .collect();
    client
        .query(&format!("SELECT {} FROM ONLY {table}", list.join(", ")), &[])
        .unwrap_or_else(|error| panic!("{table}: {error:?}"))
        .iter()
        .map(|row| {
            let values: Vec<Option<Raw>> = (0..columns.len()).map(|i| row.get(i)).collect();
            let mut out = vec![];
            let typed = columns.iter().zip(&values);
            types.named(
                typed.map(|((_, ty), v)| (*ty, v.as_ref().map(|v| v.0.as_slice()))),
                &mut out,
            );
            out
        })
        .collect()
}

/// Rows and digest of a table, as `verify` prints them.
pub fn checksum(client: &mut Client, types: &Types, table: &str) -> (i64, String) {
    let rows = rows(client, types, table);
    let sum = rows.iter().fold(0u128, |sum, row| sum.wrapping_add(digest(row)));
    (rows.len() as i64, format!("{sum:032x}"))
}
