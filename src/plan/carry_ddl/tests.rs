use super::*;
use crate::catalog::{Check, Column, ForeignKey, Trigger};

fn column(number: i16, name: &str, type_name: &str) -> Column {
    Column {
        number,
        name: Ident::new(name),
        type_name: type_name.into(),
        base_type: type_name.into(),
        ..Column::default()
    }
}

fn index(oid: u32, columns: &[&str], unique: bool) -> Index {
    Index {
        oid,
        name: Ident::new(format!("i{oid}")),
        method: Ident::new("btree"),
        unique,
        primary: false,
        valid: true,
        exclusion: false,
        constraint: None,
        deferrable: false,
        deferred: false,
        nulls_not_distinct: false,
        key_columns: columns.iter().map(|c| Some(Ident::new(*c))).collect(),
        keys: columns
            .iter()
            .map(|c| format!("{c} pg_catalog.int4_ops ASC NULLS LAST"))
            .collect(),
        include: vec![],
        predicate: None,
        options: vec![],
        ..Index::default()
    }
}

/// `id`, `d` (the partition key) and `n`, with the given primary key.
fn table(oid: u32, name: &str, key: &[&str]) -> TableDef {
    let mut primary = index(oid + 1, key, true);
    (primary.primary, primary.constraint) = (true, Some(primary.name.clone()));
    let mut columns = vec![
        column(1, "id", "integer"),
        column(2, "d", "date"),
        column(3, "n", "integer"),
    ];
    for key in &mut columns[..2] {
        key.not_null = true;
    }
    TableDef {
        oid,
        name: RelName::new("public", name),
        kind: "r".into(),
        persistence: "p".into(),
        owner: Ident::new("owner"),
        replica_identity: "d".into(),
        columns,
        indexes: vec![primary],
        ..TableDef::default()
    }
}

const LIVE: Stage = Stage {
    copying: false,
    indexes: Made::There,
    foreign_keys: Made::There,
};
const COPYING: Stage = Stage {
    copying: true,
    indexes: Made::Later,
    foreign_keys: Made::Later,
};

/// What a change of one side makes of the other: the statements without the table's name.
struct Case {
    side: Side,
    stage: Stage,
    before: TableDef,
    after: TableDef,
    other: TableDef,
    details: Details,
    partitions: Vec<RelName>,
}

fn case(side: Side) -> Case {
    let (legacy, twin) = (table(100, "t", &["id"]), table(200, "t_twin", &["id", "d"]));
    let (mine, other) = match side {
        Side::Legacy => (legacy, twin),
        Side::Twin => (twin, legacy),
    };
    Case {
        side,
        stage: LIVE,
        before: mine.clone(),
        after: mine,
        other,
        details: Details::default(),
        partitions: vec![],
    }
}

impl Case {
    fn run(&self) -> Carried<Vec<String>> {
        let key = Ident::new("d");
        let change = Change {
            side: self.side,
            before: &self.before,
            after: &self.after,
            partition_key: &key,
            details: &self.details,
            stage: self.stage,
        };
        let other = Other {
            table: &self.other,
            partitions: &self.partitions,
            proven_keys: &[],
        };
        let mut plan = structure(&change, &other)?;
        // As the other side is once its columns have followed.
        let mut now = self.other.clone();
        now.columns.retain(|c| {
            let old = self.before.column(c.name.as_str());
            old.is_none_or(|old| self.after.column_number(old.number).is_some())
        });
        for new in &self.after.columns {
            match self.before.column_number(new.number) {
                Some(old) => now
                    .columns
                    .iter_mut()
                    .filter(|c| c.name == old.name)
                    .for_each(|c| c.name = new.name.clone()),
                None => now.columns.push(new.clone()),
            }
        }
        let rest = rest(&change, &self.other, &Other { table: &now, ..other })?;
        plan.extend(rest.as_owner);
        plan.extend(rest.as_caller);
        let statements = plan.steps.into_iter().map(|step| step.statement);
        Ok(statements
            .map(|s| s.replace("\"public\".", "").replace('"', ""))
            .collect())
    }

    fn carries(&self, expected: &[&str]) {
        assert_eq!(self.run(), Ok(expected.iter().map(|s| s.to_string()).collect()));
    }

    fn refuses(&self, reason: &str) {
        let refusal = self.run().expect_err("it is refused");
        assert!(refusal.reason.contains(reason), "{refusal:?}");
        assert!(refusal.hint.ends_with('.'), "{refusal:?}");
    }
}

#[test]
fn nothing_changed_carries_nothing_whatever_the_sides_had_different() {
    let mut case = case(Side::Legacy);
    case.other.columns.push(column(9, "extra", "text"));
    case.other.indexes.push(index(300, &["n"], false));
    case.carries(&[]);
}

#[test]
fn columns_are_known_by_their_number() {
    let mut case = case(Side::Legacy);
    case.after.columns[2].name = Ident::new("m");
    case.carries(&["ALTER TABLE t_twin RENAME COLUMN n TO m"]);
    case.after.columns[2] = column(4, "n", "integer");
    case.carries(&["ALTER TABLE t_twin DROP COLUMN n, ADD COLUMN n integer"]);
}

#[test]
fn several_parts_become_one_statement_so_that_the_table_is_rewritten_once() {
    let mut case = case(Side::Twin);
    case.after.columns[2].type_name = "bigint".into();
    let mut new = column(4, "x", "text");
    (new.default, new.not_null) = (Some("'it''s'::text".into()), true);
    case.after.columns.push(new);
    case.carries(&[
        "ALTER TABLE t ALTER COLUMN n TYPE bigint, ADD COLUMN x text DEFAULT 'it''s'::text NOT NULL",
    ]);
}

#[test]
fn the_same_type_with_a_using_expression_is_a_change() {
    let mut case = case(Side::Legacy);
    case.details.using.insert(Ident::new("n"), "(n + 1)".into());
    case.carries(&["ALTER TABLE t_twin ALTER COLUMN n TYPE integer USING (n + 1)"]);
}

#[test]
fn an_old_default_is_out_of_the_way_of_a_new_type_and_the_new_one_set_after() {
    let mut case = case(Side::Legacy);
    case.before.columns[2].default = Some("1".into());
    case.other.columns[2].default = Some("1".into());
    (case.after.columns[2].type_name, case.after.columns[2].default) =
        ("text".into(), Some("'x'::text".into()));
    case.carries(&[
        "ALTER TABLE t_twin ALTER COLUMN n DROP DEFAULT, ALTER COLUMN n TYPE text",
        "ALTER TABLE t_twin ALTER COLUMN n SET DEFAULT 'x'::text",
    ]);
}

#[test]
fn keys_are_neither_dropped_nor_changed() {
    for (drop, reason) in [
        (0, "primary key or the partition key"),
        (1, "primary key or the partition key"),
    ] {
        let mut case = case(Side::Legacy);
        case.after.columns.remove(drop);
        case.refuses(reason);
    }
    let mut case = case(Side::Legacy);
    case.after.columns[1].type_name = "timestamp without time zone".into();
    case.refuses("is the partition key");
    case.after = case.before.clone();
    case.after.indexes[0].key_columns = vec![Some(Ident::new("n"))];
    case.refuses("would be another one");
}

#[test]
fn the_partition_key_of_the_twin_stays_not_null() {
    let mut case = case(Side::Legacy);
    case.after.columns[1].not_null = false;
    case.refuses("takes no NULL");
    // Where the legacy took NULL before, the twin is stricter already.
    case.before.columns[1].not_null = false;
    case.after.columns[1].not_null = true;
    case.carries(&[]);
}

#[test]
fn a_type_of_the_key_waits_for_the_end_of_the_copy() {
    let mut case = case(Side::Legacy);
    case.after.columns[0].type_name = "bigint".into();
    case.carries(&["ALTER TABLE t_twin ALTER COLUMN id TYPE bigint"]);
    case.stage = COPYING;
    case.refuses("change log");
}

#[test]
fn an_identity_of_the_legacy_is_a_default_on_the_twin_and_never_the_other_way() {
    let mut case = case(Side::Legacy);
    case.after.columns[2].identity = true;
    case.after.columns[2].sequence = Some(RelName::new("public", "t_n_seq"));
    case.carries(&[
        "ALTER TABLE t_twin ALTER COLUMN n SET DEFAULT pg_catalog.nextval('t_n_seq'::pg_catalog.regclass)",
    ]);
    case.side = Side::Twin;
    case.refuses("cannot be an identity column");
}

#[test]
fn unique_indexes_are_widened_on_the_way_to_the_twin_and_not_back() {
    let mut case = case(Side::Legacy);
    case.after.indexes.push(index(500, &["n"], true));
    case.carries(&["CREATE UNIQUE INDEX ON t_twin USING btree (n pg_catalog.int4_ops ASC NULLS LAST, d)"]);
    let mut case = self::case(Side::Twin);
    case.after.indexes.push(index(500, &["n", "d"], true));
    case.carries(&[
        "CREATE UNIQUE INDEX ON t USING btree (n pg_catalog.int4_ops ASC NULLS LAST, d pg_catalog.int4_ops ASC NULLS LAST)",
    ]);
}

#[test]
fn two_equal_indexes_are_dropped_one_by_one() {
    let mut case = case(Side::Legacy);
    case.before
        .indexes
        .extend([index(500, &["n"], false), index(501, &["n"], false)]);
    case.after.indexes.push(index(501, &["n"], false));
    case.other
        .indexes
        .extend([index(600, &["n"], false), index(601, &["n"], false)]);
    case.carries(&["DROP INDEX i601"]);
    case.other.indexes.pop();
    case.carries(&[]);
}

#[test]
fn an_index_that_was_never_finished_goes_alone() {
    let mut case = case(Side::Twin);
    let mut unfinished = index(500, &["n"], false);
    unfinished.valid = false;
    case.before.indexes.push(unfinished);
    case.other.indexes.push(index(600, &["n"], false));
    case.carries(&[]);
}

#[test]
fn an_index_that_the_server_made_again_is_still_wanted() {
    let mut case = case(Side::Legacy);
    case.before.indexes.push(index(500, &["n"], false));
    case.after.indexes.push(index(501, &["n"], false));
    case.other.indexes.push(index(600, &["n"], false));
    case.carries(&[]);
}

#[test]
fn the_backfill_makes_what_comes_before_it_and_nothing_goes_while_it_is_at_it() {
    let mut case = case(Side::Legacy);
    case.stage = COPYING;
    case.after.indexes.push(index(500, &["n"], false));
    case.after.foreign_keys.push(key(700, "fk", true));
    case.carries(&[]);
    case.stage.indexes = Made::Now;
    case.stage.foreign_keys = Made::Now;
    case.carries(&[]);
    std::mem::swap(&mut case.before, &mut case.after);
    case.refuses("giving indexes");
    case.before.indexes.pop();
    case.refuses("giving foreign keys");
}

fn key(oid: u32, name: &str, valid: bool) -> ForeignKey {
    let suffix = if valid { "" } else { " NOT VALID" };
    ForeignKey {
        oid,
        name: Ident::new(name),
        definition: format!("FOREIGN KEY (n) REFERENCES p(id){suffix}"),
        references: 1,
        comment: None,
        valid,
    }
}

#[test]
fn a_foreign_key_is_carried_when_it_is_proven() {
    let mut case = case(Side::Legacy);
    case.after.foreign_keys.push(key(700, "fk", false));
    case.carries(&[]);
    case.before = case.after.clone();
    case.after.foreign_keys[0] = key(700, "fk", true);
    case.refuses("while writers wait");
    case.before.foreign_keys.clear();
    case.carries(&["ALTER TABLE t_twin ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES p(id)"]);
    // One that points at the table itself stays where it is.
    case.after.foreign_keys[0].references = case.after.oid;
    case.carries(&[]);
}

fn check(oid: u32, name: &str, expression: &str, valid: bool) -> Check {
    Check {
        oid,
        name: Ident::new(name),
        expression: expression.into(),
        comment: None,
        valid,
    }
}

#[test]
fn a_check_is_proven_later_while_the_twin_holds_rows_that_are_gone() {
    let mut case = case(Side::Legacy);
    case.after.checks.push(check(800, "c", "(n > 0)", true));
    case.carries(&["ALTER TABLE t_twin ADD CONSTRAINT c CHECK ((n > 0))"]);
    case.stage = COPYING;
    case.carries(&["ALTER TABLE t_twin ADD CONSTRAINT c CHECK ((n > 0)) NOT VALID"]);
    case.after.checks[0].valid = false;
    case.carries(&[]);
    case.stage = LIVE;
    case.carries(&["ALTER TABLE t_twin ADD CONSTRAINT c CHECK ((n > 0)) NOT VALID"]);
}

#[test]
fn checks_of_a_twin_that_is_live_are_added_and_then_proven() {
    let case = case(Side::Legacy);
    let (mut legacy, mut twin) = (case.before, case.other);
    assert!(table::next_check(&legacy, &twin).is_none());
    legacy.checks.push(check(800, "c", "(n > 0)", true));
    assert!(matches!(
        table::next_check(&legacy, &twin),
        Some(table::NextCheck::Add(_))
    ));
    twin.checks.push(check(801, "c", "(n > 0)", false));
    assert!(matches!(
        table::next_check(&legacy, &twin),
        Some(table::NextCheck::Prove(_))
    ));
    legacy.checks[0].valid = false;
    assert!(table::next_check(&legacy, &twin).is_none());
}

#[test]
fn a_check_replaced_under_its_name_is_replaced_and_one_made_again_is_left() {
    let mut case = case(Side::Legacy);
    case.before.checks.push(check(800, "c", "(n > 0)", true));
    case.other.checks.push(check(900, "c", "(n > 0)", true));
    case.after.checks.push(check(801, "c", "(n > 0)", true));
    case.carries(&[]);
    case.after.checks[0].expression = "(n > 1)".into();
    case.carries(&[
        "ALTER TABLE t_twin DROP CONSTRAINT c",
        "ALTER TABLE t_twin ADD CONSTRAINT c CHECK ((n > 1))",
    ]);
    case.after.checks[0] = check(800, "d", "(n > 0)", true);
    case.carries(&["ALTER TABLE t_twin RENAME CONSTRAINT c TO d"]);
}

#[test]
fn what_does_not_come_to_partitions_from_their_root_is_done_to_each() {
    let mut case = case(Side::Legacy);
    case.partitions = vec![RelName::new("public", "p1"), RelName::new("public", "p2")];
    case.after.owner = Ident::new("new");
    case.after.columns[2].options = vec!["n_distinct=5".into()];
    case.carries(&[
        "ALTER TABLE t_twin ALTER COLUMN n SET (n_distinct = '5')",
        "ALTER TABLE p1 ALTER COLUMN n SET (n_distinct = '5')",
        "ALTER TABLE p2 ALTER COLUMN n SET (n_distinct = '5')",
        "ALTER TABLE t_twin OWNER TO new",
        "ALTER TABLE p1 OWNER TO new",
        "ALTER TABLE p2 OWNER TO new",
    ]);
}

#[test]
fn another_kind_of_table_and_a_disabled_sync_trigger_are_refused() {
    let mut case = case(Side::Legacy);
    case.after.persistence = "u".into();
    case.refuses("unlogged");
    case.after = case.before.clone();
    case.before.triggers.push(Trigger {
        name: Ident::new("sync"),
        enabled: "A".into(),
        comment: None,
        ours: true,
        row: false,
        transition: false,
        head: String::new(),
        tail: None,
    });
    case.refuses("keeps both sides equal");
    assert!(table::partition(&case.before, &case.after, &[]).is_err());
}

#[test]
fn a_partition_alone_takes_only_keys_that_the_legacy_has() {
    let before = table(300, "p", &["id", "d"]);
    let mut after = before.clone();
    after.foreign_keys.push(key(700, "fk", false));
    assert!(table::partition(&before, &after, &[]).is_err());
    assert!(table::partition(&before, &after, &[key(701, "fk", false)]).is_ok());
    after.columns[2].not_null = true;
    assert!(table::partition(&before, &after, &[key(701, "fk", false)]).is_err());
}
