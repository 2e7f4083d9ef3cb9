use super::*;

fn wanted() -> Wanted {
    Wanted {
        name: Ident::new("t_a_idx"),
        is_named: false,
        unique: false,
        definition: "btree (a)".into(),
    }
}

fn have(oid: u32, name: &str, valid: bool, attached_to: Option<u32>) -> Have {
    Have {
        oid,
        name: Ident::new(name),
        unique: false,
        valid,
        attached_to,
        is_building: false,
        definition: "btree (a)".into(),
    }
}

fn node(oid: u32, parent: Option<u32>, name: &str, kind: &str, indexes: Vec<Have>) -> Node {
    Node {
        oid,
        parent,
        name: RelName::new("s", name),
        kind: kind.into(),
        indexes,
    }
}

fn statements(left: Left) -> Vec<String> {
    match left {
        Left::Tasks(tasks) => tasks.into_iter().map(|task| task.statement).collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn a_tree_of_two_levels_is_indexed_table_by_table() {
    let tree = [
        node(1, None, "t", "p", vec![]),
        node(2, Some(1), "t_1", "p", vec![]),
        node(3, Some(1), "t_2", "r", vec![]),
        node(4, Some(2), "t_1_x", "r", vec![]),
    ];
    assert_eq!(
        statements(left(&wanted(), &tree, &HashSet::new())),
        [
            r#"CREATE INDEX "t_a_idx" ON ONLY "s"."t" USING btree (a)"#,
            r#"CREATE INDEX "t_1_a_idx" ON ONLY "s"."t_1" USING btree (a)"#,
            r#"ALTER INDEX "s"."t_a_idx" ATTACH PARTITION "s"."t_1_a_idx""#,
            r#"CREATE INDEX CONCURRENTLY "t_2_a_idx" ON "s"."t_2" USING btree (a)"#,
            r#"ALTER INDEX "s"."t_a_idx" ATTACH PARTITION "s"."t_2_a_idx""#,
            r#"CREATE INDEX CONCURRENTLY "t_1_x_a_idx" ON "s"."t_1_x" USING btree (a)"#,
            r#"ALTER INDEX "s"."t_1_a_idx" ATTACH PARTITION "s"."t_1_x_a_idx""#,
        ]
    );
}

#[test]
fn an_interrupted_build_goes_on_where_it_was() {
    let tree = [
        node(1, None, "t", "p", vec![have(10, "t_a_idx", false, None)]),
        node(
            2,
            Some(1),
            "t_1",
            "r",
            vec![have(11, "t_1_a_idx", true, Some(10))],
        ),
        node(3, Some(1), "t_2", "r", vec![have(12, "other", true, None)]),
        node(4, Some(1), "t_3", "r", vec![have(13, "t_3_a_idx", false, None)]),
    ];
    assert_eq!(
        statements(left(&wanted(), &tree, &HashSet::new())),
        [
            r#"ALTER INDEX "s"."t_a_idx" ATTACH PARTITION "s"."other""#,
            r#"DROP INDEX CONCURRENTLY "s"."t_3_a_idx""#,
            r#"CREATE INDEX CONCURRENTLY "t_3_a_idx" ON "s"."t_3" USING btree (a)"#,
            r#"ALTER INDEX "s"."t_a_idx" ATTACH PARTITION "s"."t_3_a_idx""#,
        ]
    );
}

#[test]
fn an_index_that_another_session_builds_is_not_taken_for_a_leftover() {
    let mut building = have(11, "mine", false, None);
    building.is_building = true;
    let tree = [
        node(1, None, "t", "p", vec![have(10, "t_a_idx", false, None)]),
        node(2, Some(1), "t_1", "r", vec![building]),
    ];
    assert_eq!(
        left(&wanted(), &tree, &HashSet::new()),
        Left::Building(RelName::new("s", "t_1"))
    );
}

#[test]
fn a_named_index_is_not_an_equal_one_of_another_name() {
    let tree = [node(1, None, "t", "p", vec![have(10, "t_a_idx", true, None)])];
    assert_eq!(left(&wanted(), &tree, &HashSet::new()), Left::Nothing);
    let named = Wanted {
        name: Ident::new("second"),
        is_named: true,
        ..wanted()
    };
    assert!(matches!(left(&named, &tree, &HashSet::new()), Left::Tasks(_)));
}

#[test]
fn long_names_stay_within_the_limit_and_whole_characters() {
    let long = Ident::new("é".repeat(31));
    let name = name_of(&wanted(), &Ident::new("t"), &long, 1);
    assert!(name.as_str().len() <= MAX_NAME_BYTES);
    assert!(name.as_str().ends_with("_a_idx1"));
}

#[test]
fn a_name_that_is_taken_is_not_given_again() {
    let tree = [
        node(1, None, "t", "p", vec![have(10, "t_a_idx", false, None)]),
        node(2, Some(1), "t_1", "r", vec![]),
    ];
    let taken = HashSet::from([(Ident::new("s"), Ident::new("t_1_a_idx"))]);
    assert_eq!(
        statements(left(&wanted(), &tree, &taken))[0],
        r#"CREATE INDEX CONCURRENTLY "t_1_a_idx1" ON "s"."t_1" USING btree (a)"#
    );
}

#[test]
fn a_table_that_is_not_partitioned_gets_its_index_at_once_and_what_a_build_left_is_made_anew() {
    let plain = |indexes| [node(1, None, "t", "r", indexes)];
    let taken = HashSet::from([(Ident::new("s"), Ident::new("t_a_idx"))]);
    assert_eq!(
        statements(left(&wanted(), &plain(vec![]), &taken)),
        [r#"CREATE INDEX CONCURRENTLY "t_a_idx1" ON "s"."t" USING btree (a)"#]
    );
    assert_eq!(
        statements(left(
            &wanted(),
            &plain(vec![have(7, "t_a_idx", false, None)]),
            &taken
        )),
        [
            r#"DROP INDEX CONCURRENTLY "s"."t_a_idx""#,
            r#"CREATE INDEX CONCURRENTLY "t_a_idx" ON "s"."t" USING btree (a)"#,
        ]
    );
    let whole = plain(vec![have(7, "other", true, None)]);
    assert_eq!(left(&wanted(), &whole, &taken), Left::Nothing);
    let named = Wanted {
        is_named: true,
        ..wanted()
    };
    assert_eq!(
        statements(left(&named, &whole, &taken)),
        [r#"CREATE INDEX CONCURRENTLY "t_a_idx" ON "s"."t" USING btree (a)"#]
    );
}
