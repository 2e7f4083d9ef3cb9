//! Values that are compressed or kept out of line.

use super::{Shape, column};

pub const LARGE: Shape = Shape {
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
