//! The faults: what each makes of one value, table by table.

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

pub const SHAPES: [&Shape; 5] = [&NUMBERS, &TEXTS, &TIMES, &NESTED, &LARGE];

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

const NUMBERS: Shape = Shape {
    table: "numbers",
    same_type: Some(["left_one", "right_one"]),
    columns: &[
        column("b", "boolean", "g % 2 = 0", &[("a boolean", "NOT b")]),
        column(
            "c1",
            "\"char\"",
            "chr((65 + g % 20)::int)::\"char\"",
            &[("a byte", "chr(ascii(c1::text) + 1)::\"char\"")],
        ),
        column(
            "i2",
            "smallint",
            "(g % 1000)::int2",
            &[
                ("a bit of smallint", "(i2 # (1 << $r % 15)::int2)::int2"),
                ("the sign of smallint", "(-i2 - 1)::int2"),
            ],
        ),
        column(
            "i4",
            "int",
            "(g * 77)::int",
            &[
                ("a bit of int", "i4 # (1 << $r % 31)"),
                ("the sign bit of int", "i4 # (1 << 31)"),
            ],
        ),
        column(
            "i8",
            "bigint",
            "g * 7777777777",
            &[
                ("a bit of bigint", "i8 # (1::int8 << $r % 63)"),
                ("a half of bigint", "i8 # ((1::int8 << 32) + 1)"),
            ],
        ),
        column("o", "oid", "(g + 5)::oid", &[("an oid", "(o::int8 + 1)::oid")]),
        column(
            "f4",
            "real",
            "(1 + (g % 1000) / 1e4)::float4",
            &[("one ulp of real", "f4 + 1.1920929e-07::float4")],
        ),
        column(
            "f8",
            "double precision",
            "(1 + (g % 1000) / 1e4)::float8",
            &[(
                "one ulp of double precision",
                "f8 + 2.220446049250313e-16::float8",
            )],
        ),
        column("z4", "real", "'0'", &[("the sign of a real zero", "'-0'")]),
        column(
            "z8",
            "double precision",
            "'0'",
            &[
                ("the sign of zero", "'-0'"),
                ("a zero against NULL", "NULL"),
                ("the least double", "'5e-324'"),
            ],
        ),
        column(
            "nan4",
            "real",
            "'NaN'",
            &[("the payload of a real NaN", "'2143289345'::oid::float4")],
        ),
        column(
            "nan8",
            "double precision",
            "'NaN'",
            &[
                ("the payload of NaN", "'9221120237041090561'::xid8::float8"),
                ("the sign of NaN", "-nan8"),
                ("NaN against NULL", "NULL"),
            ],
        ),
        column(
            "inf",
            "double precision",
            "'Infinity'",
            &[
                ("the sign of infinity", "'-Infinity'"),
                ("infinity against NaN", "'NaN'"),
            ],
        ),
        column(
            "scale",
            "numeric",
            "g + 0.5",
            &[
                ("the scale of numeric", "scale + 0.00"),
                ("the scale of numeric by one", "scale + 0.00000000"),
            ],
        ),
        column(
            "long",
            "numeric",
            "12345678901234567890.123456789 + g",
            &[
                ("the last digit of numeric", "long + 0.000000001"),
                ("numeric against NaN", "'NaN'"),
                ("numeric against infinity", "'Infinity'"),
            ],
        ),
        column("zero", "numeric", "0", &[("the scale of a zero", "0.0")]),
        column("neg", "numeric", "g + 1", &[("the sign of numeric", "-neg")]),
        column(
            "modified",
            "numeric(12, 2)",
            "g / 7.0",
            &[("a hundredth", "modified + 0.01")],
        ),
        column("m", "money", "g::int::money", &[("a cent", "m + '0.01'::money")]),
        column(
            "b8",
            "bit(8)",
            "(g % 256)::int::bit(8)",
            &[("a bit of bit(8)", "b8 # (1 << $r % 8)::bit(8)")],
        ),
        column(
            "vb",
            "bit varying",
            "B'0101'",
            &[
                ("a zero bit more", "vb || B'0'"),
                ("a bit string against NULL", "NULL"),
                ("a bit string against an empty one", "B''"),
            ],
        ),
        column(
            "x8",
            "xid8",
            "g::text::xid8",
            &[("an xid8", "(x8::text::numeric + 1)::text::xid8")],
        ),
        column(
            "lsn",
            "pg_lsn",
            "('7/' || to_hex(g))::pg_lsn",
            &[("a byte of WAL", "lsn + 1")],
        ),
        column(
            "ti",
            "tid",
            "('(' || g || ',1)')::tid",
            &[("a tid", "('(' || $r % 1000000 + 5000000 || ',1)')::tid")],
        ),
        column(
            "acl",
            "aclitem",
            "'postgres=r/postgres'",
            &[("a right", "'postgres=rw/postgres'")],
        ),
        column("dom", "cents", "g", &[("a domain", "dom + 1")]),
        column("left_one", "int", "(g * 2)::int", &[]),
        column("right_one", "int", "(g * 2 + 1)::int", &[]),
    ],
};

const TEXTS: Shape = Shape {
    table: "texts",
    same_type: Some(["t", "nothing"]),
    columns: &[
        column(
            "t",
            "text",
            "'Row ' || g || ' of many'",
            &[
                ("a trailing space", "t || ' '"),
                ("a leading space", "' ' || t"),
                ("upper case", "upper(t)"),
                ("a letter", "overlay(t PLACING 'c' FROM 2)"),
                ("a tab for a space", "replace(t, ' ', E'\\t')"),
                ("a space without a break", "replace(t, ' ', U&'\\00a0')"),
                ("a space of no width", "t || U&'\\200b'"),
                ("a text against NULL", "NULL"),
                ("a text against an empty one", "''"),
                ("two letters swapped", "overlay(t PLACING 'oR' FROM 1)"),
            ],
        ),
        column(
            "empty",
            "text",
            "''",
            &[("NULL against empty", "NULL"), ("a space against empty", "' '")],
        ),
        column(
            "nothing",
            "text",
            "NULL",
            &[
                ("empty against NULL", "''"),
                ("the word NULL against NULL", "'NULL'"),
            ],
        ),
        column(
            "nfc",
            "text",
            "U&'caf\\00e9 ' || g",
            &[("another form of é", "normalize(nfc, NFD)")],
        ),
        column(
            "crlf",
            "text",
            "E'a\\r\\nb'",
            &[("an end of line", "replace(crlf, E'\\r', '')")],
        ),
        column(
            "vc",
            "varchar(40)",
            "'v' || g",
            &[("a space at the end of varchar", "vc || ' '")],
        ),
        column(
            "bc",
            "char(8)",
            "'x' || g % 1000",
            &[("a character of char(8)", "bc || 'y'")],
        ),
        column("nm", "name", "'n' || g", &[("a name", "(nm || 'x')::name")]),
        column(
            "nocase",
            "text COLLATE nocase",
            "'Key ' || g",
            &[(
                "a case that the collation does not see",
                "upper(nocase) COLLATE nocase",
            )],
        ),
        column(
            "ci",
            "citext",
            "'Key ' || g",
            &[("a case that the type does not see", "upper(ci::text)::citext")],
        ),
        column(
            "long126",
            "text",
            "repeat('x', 126)",
            &[("a length that needs another header", "long126 || 'x'")],
        ),
        column(
            "by",
            "bytea",
            "decode(md5(g::text), 'hex')",
            &[
                (
                    "a bit of bytea",
                    "set_bit(by, $r % 128, 1 - get_bit(by, $r % 128))",
                ),
                ("a trailing zero byte", "by || '\\x00'"),
                ("a leading zero byte", "'\\x00' || by"),
                ("bytea against an empty one", "''"),
            ],
        ),
        column(
            "u",
            "uuid",
            "md5(g::text)::uuid",
            &[(
                "the last digit of uuid",
                "(left(u::text, 35) || translate(right(u::text, 1), '0123456789abcdef', '123456789abcdef0'))::uuid",
            )],
        ),
        column(
            "js",
            "json",
            "('{\"a\" : ' || g || ', \"b\": [1, 2]}')::json",
            &[
                ("white space of json", "replace(js::text, ' : ', ':')::json"),
                (
                    "the order of json's keys",
                    "('{\"b\": [1, 2], \"a\" : ' || (js ->> 'a') || '}')::json",
                ),
                (
                    "a key of json twice",
                    "('{\"a\" : 0, \"a\" : ' || (js ->> 'a') || ', \"b\": [1, 2]}')::json",
                ),
            ],
        ),
        column(
            "jb",
            "jsonb",
            "jsonb_build_object('g', g, 'n', 1, 's', '1', 'o', '{}'::jsonb, 'deep', '{\"a\": [1, {\"b\": null}]}'::jsonb)",
            &[
                ("the scale of a number in jsonb", "jb || '{\"n\": 1.0}'"),
                ("a string for a number in jsonb", "jb || '{\"n\": \"1\"}'"),
                ("null for nothing in jsonb", "jb || '{\"x\": null}'"),
                ("[] for {} in jsonb", "jb || '{\"o\": []}'"),
                (
                    "false for null deep in jsonb",
                    "jsonb_set(jb, '{deep,a,1,b}', 'false')",
                ),
                (
                    "the order of elements in jsonb",
                    "jsonb_set(jb, '{deep,a}', '[{\"b\": null}, 1]')",
                ),
                ("jsonb's null against NULL", "NULL"),
            ],
        ),
        column(
            "jnull",
            "jsonb",
            "'null'",
            &[("NULL against jsonb's null", "NULL")],
        ),
        column(
            "x",
            "xml",
            "('<a n=\"' || g || '\">1</a>')::xml",
            &[("white space of xml", "replace(x::text, '<a ', '<a  ')::xml")],
        ),
        column(
            "tv",
            "tsvector",
            "to_tsvector('simple', 'the fat cat ' || g)",
            &[
                ("a weight of tsvector", "setweight(tv, 'A')"),
                ("a position of tsvector", "tv || 'cat:9'"),
                ("positions of tsvector", "strip(tv)"),
            ],
        ),
        column(
            "tq",
            "tsquery",
            "'fat & cat'",
            &[("an operator of tsquery", "'fat | cat'")],
        ),
        column(
            "jp",
            "jsonpath",
            "'$.a'",
            &[("the mode of jsonpath", "'strict $.a'")],
        ),
        column(
            "hs",
            "hstore",
            "hstore('a', g::text)",
            &[
                ("NULL in hstore", "hs || hstore('a', NULL)"),
                ("a key of hstore", "hs || hstore('b', '')"),
            ],
        ),
        column(
            "lt",
            "ltree",
            "('a.b' || g)::ltree",
            &[("a label of ltree", "lt || 'x'")],
        ),
        column("cu", "cube", "cube(g, 2)", &[("a side of cube", "cube(cu, 0)")]),
        column(
            "i2v",
            "int2vector",
            "'1 2'",
            &[("an element of int2vector", "'1 3'")],
        ),
        column("ov", "oidvector", "'1 2'", &[("an oid of oidvector", "'2 1'")]),
    ],
};

const TIMES: Shape = Shape {
    table: "times",
    same_type: Some(["ts", "later"]),
    columns: &[
        column(
            "d",
            "date",
            "date '2026-01-01' + g::int",
            &[
                ("a day", "d + 1"),
                ("a date against infinity", "'infinity'"),
                ("years before Christ", "(d::text || ' BC')::date"),
            ],
        ),
        column(
            "t",
            "time",
            "time '12:00' + g * interval '1 second'",
            &[("one microsecond of time", "t + interval '1 microsecond'")],
        ),
        column(
            "midnight",
            "time",
            "'00:00'",
            &[("24:00 against 00:00", "'24:00'")],
        ),
        column(
            "tz",
            "timetz",
            "timetz '12:00+02'",
            &[
                ("the zone of the same instant", "timetz '11:00+01'"),
                ("one microsecond of timetz", "tz + interval '1 microsecond'"),
                ("a second of the zone", "timetz '12:00+02:00:01'"),
            ],
        ),
        column(
            "ts",
            "timestamp",
            "timestamp '2026-01-01' + g * interval '1 day'",
            &[
                ("one microsecond", "ts + interval '1 microsecond'"),
                ("the infinity of time", "'-infinity'"),
                ("a millennium", "ts - interval '1000 years'"),
            ],
        ),
        column(
            "later",
            "timestamp",
            "timestamp '2027-01-01' + g * interval '1 day'",
            &[],
        ),
        column(
            "tstz",
            "timestamptz",
            "timestamptz '2026-01-01 UTC' + g * interval '1 day'",
            &[
                (
                    "one microsecond of timestamptz",
                    "tstz - interval '1 microsecond'",
                ),
                ("an hour of DST", "tstz + interval '1 hour'"),
                ("a time against NULL", "NULL"),
            ],
        ),
        column(
            "forever",
            "timestamptz",
            "'infinity'",
            &[("infinity against minus infinity", "'-infinity'")],
        ),
        column(
            "month",
            "interval",
            "'1 month'",
            &[
                ("30 days for a month", "'30 days'"),
                ("720 hours for a month", "'720 hours'"),
            ],
        ),
        column(
            "day",
            "interval",
            "'1 day'",
            &[
                ("24 hours for a day", "'24 hours'"),
                ("a day that is two", "'2 days -24 hours'"),
                ("one microsecond of interval", "day + interval '1 microsecond'"),
            ],
        ),
        column(
            "zero",
            "interval",
            "'0'",
            &[("a zero of two parts", "'1 month -30 days'")],
        ),
        column(
            "r",
            "tstzrange",
            "tstzrange(timestamptz '2026-01-01 UTC', timestamptz '2026-01-01 UTC' + g * interval '1 hour')",
            &[
                (
                    "the bound of a range of time",
                    "tstzrange(lower(r), upper(r), '[]')",
                ),
                ("no bound for infinity", "tstzrange(lower(r), NULL)"),
                ("infinity for no bound", "tstzrange(lower(r), 'infinity')"),
            ],
        ),
        column(
            "ds",
            "date[]",
            "ARRAY[date '2026-01-01' + g::int, NULL]",
            &[("a day in an array", "ARRAY[ds[1] + 1, NULL]")],
        ),
    ],
};

const NESTED: Shape = Shape {
    table: "nested",
    same_type: Some(["arr", "arr2"]),
    columns: &[
        column("m", "mood", "'ok'", &[("an enum's label", "'happy'")]),
        column(
            "ms",
            "mood[]",
            "ARRAY['sad', NULL]::mood[]",
            &[("a label in an array", "ARRAY['ok', NULL]::mood[]")],
        ),
        column(
            "pl",
            "place",
            "('s' || g, g, g)::place",
            &[
                ("a field NULL", "ROW((pl).street, NULL, (pl).at)::place"),
                ("a row of NULLs", "ROW(NULL, NULL, NULL)::place"),
                ("a row against NULL", "NULL"),
                (
                    "the scale of a field",
                    "ROW((pl).street, (pl).no + 0.0, (pl).at)::place",
                ),
                ("an empty field", "ROW('', (pl).no, (pl).at)::place"),
            ],
        ),
        column(
            "nulls",
            "place",
            "ROW(NULL, NULL, NULL)::place",
            &[("NULL against a row of NULLs", "NULL")],
        ),
        column(
            "tr",
            "trip",
            "ROW(ARRAY[('s', g, NULL)::place, NULL], 'happy')::trip",
            &[
                (
                    "a field three levels down",
                    "ROW(ARRAY[('s', (tr).stops[1].no + 0.0, NULL)::place, NULL], 'happy')::trip",
                ),
                ("an enum in a row", "ROW((tr).stops, 'sad')::trip"),
            ],
        ),
        column(
            "w",
            "words",
            "ARRAY['a', 'NULL', 'b' || g]",
            &[
                (
                    "NULL for the word NULL in an array",
                    "ARRAY['a', NULL, w[3]]::words",
                ),
                ("no words", "ARRAY[]::words"),
            ],
        ),
        column(
            "arr",
            "int[]",
            "ARRAY[g::int, 2, 3, 4]",
            &[
                (
                    "the bounds of an array",
                    "('[0:3]=' || (ARRAY[arr[1], 2, 3, 4])::text)::int[]",
                ),
                ("two dimensions for one", "ARRAY[ARRAY[arr[1], 2], ARRAY[3, 4]]"),
                ("the order of elements", "ARRAY[arr[2], arr[1], arr[3], arr[4]]"),
                ("an element NULL", "ARRAY[arr[1], NULL, 3, 4]"),
                ("an empty array", "'{}'"),
                ("an array against NULL", "NULL"),
                ("an element more", "arr || 5"),
            ],
        ),
        column("arr2", "int[]", "ARRAY[g::int, 0]", &[]),
        column(
            "cube3",
            "int[]",
            "ARRAY[[[1, 2], [3, 4]], [[5, 6], [7, g::int]]]",
            &[(
                "an element of three dimensions",
                "ARRAY[[[2, 1], [3, 4]], [[5, 6], [7, cube3[2][2][2]]]]",
            )],
        ),
        column(
            "nums",
            "numeric[]",
            "ARRAY[1.0, g]",
            &[("the scale of an element", "ARRAY[1.00, nums[2]]")],
        ),
        column(
            "zeros",
            "float8[]",
            "ARRAY[0::float8]",
            &[("the sign of zero in an array", "ARRAY['-0'::float8]")],
        ),
        column(
            "r",
            "numrange",
            "numrange(1, 5 + g)",
            &[
                ("a bound of a range", "numrange(lower(r), upper(r), '[]')"),
                ("the scale of a bound", "numrange(lower(r) + 0.0, upper(r))"),
                ("an empty range", "'empty'"),
                ("a range without an end", "numrange(lower(r), NULL)"),
                ("a range against NULL", "NULL"),
            ],
        ),
        column(
            "r4",
            "int4range",
            "int4range(g::int, g::int + 5)",
            &[("an end by one", "int4range(lower(r4), upper(r4) + 1)")],
        ),
        column(
            "sp",
            "span",
            "span(g, NULL, '[]')",
            &[("a bound of one's own range", "span(lower(sp), NULL, '()')")],
        ),
        column(
            "mr",
            "spans",
            "spans(span(1, 2), span(3, g + 4))",
            &[
                ("a range of a multirange", "spans(span(3, 7))"),
                ("a bound of a multirange", "spans(span(1, 2, '[]'), span(3, 9))"),
                ("no ranges", "'{}'"),
            ],
        ),
        column(
            "ip",
            "inet",
            "inet '10.0.0.1/8' + g",
            &[
                ("the length of a mask", "set_masklen(ip, 16)"),
                ("an address in six", "('::ffff:' || host(ip))::inet"),
                ("an address", "ip + 1"),
            ],
        ),
        column("net", "cidr", "'10.1.0.0/16'", &[("a network", "'10.1.0.0/17'")]),
        column(
            "mac",
            "macaddr",
            "'08:00:2b:01:02:03'",
            &[("a macaddr", "'08:00:2b:01:02:04'")],
        ),
        column(
            "mac8",
            "macaddr8",
            "'08:00:2b:01:02:03:04:05'",
            &[("a macaddr8", "'08:00:2b:01:02:03:04:04'")],
        ),
        column(
            "pt",
            "point",
            "point(0, g)",
            &[
                ("the sign of a point's zero", "point('-0', pt[1])"),
                ("a point's coordinates swapped", "point(pt[1], pt[0])"),
            ],
        ),
        column("bx", "box", "'(3,4),(1,2)'", &[("a corner", "'(3,4),(1,1)'")]),
        column(
            "ls",
            "lseg",
            "'[(1,2),(3,4)]'",
            &[("the direction of a segment", "'[(3,4),(1,2)]'")],
        ),
        column("ln", "line", "'{1,2,3}'", &[("a line", "'{2,4,6}'")]),
        column(
            "pa",
            "path",
            "'[(0,0),(1,1),(2,0)]'",
            &[("a path closed", "'((0,0),(1,1),(2,0))'")],
        ),
        column(
            "po",
            "polygon",
            "'((0,0),(1,1),(2,0))'",
            &[("where a polygon begins", "'((1,1),(2,0),(0,0))'")],
        ),
        column(
            "ci",
            "circle",
            "'<(1,2),3>'",
            &[("a radius", "'<(1,2),3.0000000000000004>'")],
        ),
        column("rt", "regtype", "'int'", &[("a type", "'bigint'")]),
    ],
};

const LARGE: Shape = Shape {
    table: "large",
    same_type: Some(["outside", "outside2"]),
    columns: &[
        column(
            "outside",
            "text",
            "noise(g, 300)",
            &[
                (
                    "the last byte of a toasted text",
                    "overlay(outside PLACING '!' FROM length(outside))",
                ),
                ("the first byte of a toasted text", "'!' || substr(outside, 2)"),
                (
                    "two chunks swapped",
                    "substr(outside, 1997, 1996) || substr(outside, 1, 1996) || substr(outside, 3993)",
                ),
                ("a toasted text one byte shorter", "left(outside, -1)"),
                ("a toasted text against an empty one", "''"),
                ("a toasted text against NULL", "NULL"),
            ],
        ),
        column("outside2", "text", "noise(-g, 100)", &[]),
        column(
            "external",
            "text STORAGE_EXTERNAL",
            "repeat('abcdefgh', 1500)",
            &[(
                "a byte between two chunks",
                "overlay(external PLACING '!' FROM 1996)",
            )],
        ),
        column(
            "packed",
            "text",
            "repeat('x', 20000 + (g % 7)::int)",
            &[
                (
                    "a byte of a compressed text",
                    "overlay(packed PLACING 'y' FROM 1 + $r % 20000)",
                ),
                ("the length of a compressed text", "packed || 'x'"),
            ],
        ),
        column(
            "lz4",
            "text COMPRESSION lz4",
            "repeat('lz4 ' || g, 3000)",
            &[(
                "a byte of an lz4 text",
                "overlay(lz4 PLACING '!' FROM 1 + $r % 9000)",
            )],
        ),
        column(
            "inside",
            "text STORAGE_MAIN",
            "repeat('main' || g, 500)",
            &[(
                "a byte compressed in the row",
                "overlay(inside PLACING '!' FROM 1 + $r % 2000)",
            )],
        ),
        column(
            "bin",
            "bytea",
            "decode(noise(g, 200), 'hex')",
            &[(
                "a bit of a toasted bytea",
                "set_bit(bin, $r % 25600, 1 - get_bit(bin, $r % 25600))",
            )],
        ),
        column(
            "js",
            "jsonb",
            "jsonb_build_object('k', noise(g, 100), 'a', 1)",
            &[
                ("a number in a toasted jsonb", "js || '{\"a\": 1.0}'"),
                ("a key of a toasted jsonb", "(js - 'a') || '{\"b\": 1}'"),
            ],
        ),
        column(
            "arr",
            "text[]",
            "ARRAY[noise(g, 150), NULL, 'tiny']",
            &[("an element of a toasted array", "ARRAY[arr[1], '', 'tiny']")],
        ),
        column(
            "digits",
            "numeric",
            "(repeat('1234567890', 600) || '.' || g)::numeric",
            &[("the scale of a toasted numeric", "digits + 0.00000000")],
        ),
        column(
            "tail",
            "int",
            "g::int",
            &[("what comes after large values", "tail + 1")],
        ),
    ],
};
