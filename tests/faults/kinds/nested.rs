//! Values made of values: arrays, composites, ranges, documents.

use super::{Shape, column};

pub const NESTED: Shape = Shape {
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
