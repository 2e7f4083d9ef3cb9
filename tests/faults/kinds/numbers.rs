//! Numbers and bits.

use super::{Shape, column};

pub const NUMBERS: Shape = Shape {
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
