//! Texts and bytes.

use super::{Shape, column};

pub const TEXTS: Shape = Shape {
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
