use super::*;
use crate::catalog::Index;
use serde_json::json;

fn table(oid: u32, name: &str, kind: &str, index: &str, keys: &[&str]) -> TableDef {
    TableDef {
        oid,
        name: RelName::new("public", name),
        kind: kind.into(),
        indexes: vec![Index {
            primary: true,
            unique: true,
            ..index_named(index, keys)
        }],
        ..TableDef::default()
    }
}

fn index_named(name: &str, keys: &[&str]) -> Index {
    serde_json::from_value(json!({
        "name": name, "method": "btree", "unique": false, "primary": false, "valid": true, "exclusion": false,
        "constraint": name, "deferrable": false, "deferred": false, "nulls_not_distinct": false,
        "key_columns": keys, "keys": keys.iter().map(|k| format!("\"{k}\"")).collect::<Vec<_>>(), "include": [],
        "predicate": null, "options": [], "tablespace": null
    }))
    .expect("an index")
}

fn statements(plan: &SwapPlan) -> Vec<String> {
    plan.shown(100).steps.into_iter().map(|s| s.statement).collect()
}

#[test]
fn the_twin_takes_the_names_and_the_way_back_gives_them_back() {
    let legacy = table(1, "revenues", "r", "revenues_pkey", &["id"]);
    let twin = table(
        2,
        "revenues_partitioned",
        "p",
        "revenues_partitioned_pkey",
        &["id", "at"],
    );
    let none = Dependents::default();
    let side = |table| Side {
        table,
        dependents: &none,
        partitions: &[],
    };
    let there = plan(&Swap {
        from: side(&legacy),
        to: side(&twin),
        away: &Ident::new("revenues_legacy"),
        partition_key: &Ident::new("at"),
        restore_via_root: &[],
        suffix: "_legacy",
    });
    assert_eq!(
        statements(&there),
        [
            "LOCK TABLE \"public\".\"revenues\" IN ACCESS EXCLUSIVE MODE",
            "LOCK TABLE \"public\".\"revenues_partitioned\" IN ACCESS EXCLUSIVE MODE",
            "ALTER TABLE \"public\".\"revenues\" RENAME TO \"revenues_legacy\"",
            "ALTER TABLE \"public\".\"revenues_partitioned\" RENAME TO \"revenues\"",
            "ALTER TABLE \"public\".\"revenues_legacy\" RENAME CONSTRAINT \"revenues_pkey\" TO \"revenues_pkey_legacy\"",
            "ALTER TABLE \"public\".\"revenues\" RENAME CONSTRAINT \"revenues_partitioned_pkey\" TO \"revenues_pkey\"",
        ]
    );
    let legacy = table(1, "revenues_legacy", "r", "revenues_pkey_legacy", &["id"]);
    let twin = table(2, "revenues", "p", "revenues_pkey", &["id", "at"]);
    let back = plan(&Swap {
        from: side(&twin),
        to: side(&legacy),
        away: &Ident::new("revenues_partitioned"),
        partition_key: &Ident::new("at"),
        restore_via_root: &[],
        suffix: "_partitioned",
    });
    let back = statements(&back);
    assert_eq!(
        back[2..4],
        [
            "ALTER TABLE \"public\".\"revenues\" RENAME TO \"revenues_partitioned\"",
            "ALTER TABLE \"public\".\"revenues_legacy\" RENAME TO \"revenues\"",
        ]
    );
    assert_eq!(
        back[5],
        "ALTER TABLE \"public\".\"revenues\" RENAME CONSTRAINT \"revenues_pkey_legacy\" TO \"revenues_pkey\""
    );
}

#[test]
fn a_name_that_makes_room_is_free_and_not_too_long() {
    let long = "é".repeat(31);
    let legacy = table(1, "t", "r", &long, &["id"]);
    let twin = table(2, "t_partitioned", "p", "p", &["id"]);
    let taken = Dependents {
        taken: vec![Ident::new(format!("{}_legacy", "é".repeat(28)))],
        ..Dependents::default()
    };
    let none = Dependents::default();
    let done = plan(&Swap {
        from: Side {
            table: &legacy,
            dependents: &taken,
            partitions: &[],
        },
        to: Side {
            table: &twin,
            dependents: &none,
            partitions: &[],
        },
        away: &Ident::new("t_legacy"),
        partition_key: &Ident::new("id"),
        restore_via_root: &[],
        suffix: "_legacy",
    });
    let renamed = &done.names.steps[2].statement;
    assert!(
        renamed.ends_with(&format!("TO \"{}_legacy1\"", "é".repeat(27))),
        "{renamed}"
    );
}

#[test]
fn a_trigger_of_one_side_alone_is_told_before_anything_is_locked() {
    let legacy = table(1, "t", "r", "a", &["id"]);
    let mut twin = table(2, "t_partitioned", "p", "b", &["id"]);
    twin.triggers.push(
        serde_json::from_value(
            json!({"name": "mine", "enabled": "O", "comment": null, "ours": false, "row": true,
            "transition": false, "head": "", "tail": ""}),
        )
        .expect("a trigger"),
    );
    let none = Dependents::default();
    let side = |table| Side {
        table,
        dependents: &none,
        partitions: &[],
    };
    let lost = lost(&Swap {
        from: side(&legacy),
        to: side(&twin),
        away: &Ident::new("t_legacy"),
        partition_key: &Ident::new("id"),
        restore_via_root: &[],
        suffix: "_legacy",
    });
    assert_eq!(
        lost,
        ["trigger \"mine\" is on \"public\".\"t_partitioned\" alone"]
    );
}
