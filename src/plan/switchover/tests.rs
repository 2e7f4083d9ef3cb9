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
        shares_identity: false,
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
        shares_identity: false,
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
        shares_identity: false,
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
        shares_identity: false,
        suffix: "_legacy",
    });
    assert_eq!(
        lost,
        ["trigger \"mine\" is on \"public\".\"t_partitioned\" alone"]
    );
}

fn key_in(name: &str, columns: &[&str], on_delete: &str, kind: &str, oid: u32) -> crate::catalog::Reference {
    serde_json::from_value(json!({
        "name": name, "relation": "child", "table": { "schema": "public", "name": "child" }, "oid": oid, "kind": kind,
        "columns": columns, "definition": "FOREIGN KEY (a, b) REFERENCES public.revenues(id, at) NOT VALID",
        "on_delete": on_delete, "valid": name != "loose", "comment": null, "owned": true
    }))
    .expect("a key")
}

#[test]
fn keys_that_name_the_partition_key_go_with_the_name_and_others_stay() {
    let wide = ["id", "at"];
    let mut legacy = table(1, "revenues", "r", "revenues_pkey", &wide);
    legacy.referenced_by = vec![
        key_in("moves", &wide, "a", "r", 9),
        key_in("loose", &["at", "id"], "r", "r", 9),
        key_in("at_id", &["id"], "a", "r", 9),
        key_in("cascades", &wide, "c", "r", 9),
        key_in("of_partitioned", &wide, "a", "p", 9),
        key_in("of_itself", &wide, "a", "r", 1),
    ];
    let twin = table(2, "revenues_partitioned", "p", "revenues_partitioned_pkey", &wide);
    let none = Dependents::default();
    let partitions = [(5, RelName::new("public", "revenues_0"))];
    let away = Ident::new("revenues_legacy");
    let key = Ident::new("at");
    let done = plan(&Swap {
        from: Side {
            table: &legacy,
            dependents: &none,
            partitions: &[],
        },
        to: Side {
            table: &twin,
            dependents: &none,
            partitions: &partitions,
        },
        away: &away,
        partition_key: &key,
        restore_via_root: &[],
        shares_identity: false,
        suffix: "_legacy",
    });
    let made: Vec<_> = done
        .definitions
        .steps
        .iter()
        .map(|s| s.statement.as_str())
        .collect();
    assert_eq!(
        made,
        ["moves", "loose"].map(|name| format!(
            "ALTER TABLE \"public\".\"child\" DROP CONSTRAINT \"{name}\", ADD CONSTRAINT \"{name}\" FOREIGN KEY (a, b) \
             REFERENCES public.revenues(id, at) NOT VALID"
        ))
    );
    let proven: Vec<_> = done.moved.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(proven, ["moves"]);
    assert_eq!(done.staying.len(), 4);
    let locked: Vec<_> = done.locks.iter().map(|lock| (lock.oid, lock.strength)).collect();
    assert_eq!(locked, [9, 1, 2, 5].map(|oid| (oid, Strength::AccessExclusive)));
}

/// Down to the partitions before PostgreSQL 17, whose identity is their own business.
#[test]
fn partitions_lose_the_default_that_they_draw_by_where_they_have_one() {
    let legacy = table(1, "t_legacy", "r", "a", &["id"]);
    let twin = table(2, "t", "p", "b", &["id"]);
    let numbers = Dependents {
        sequences: vec![
            serde_json::from_value(json!({
                "column": "id", "oid": 9, "name": {"schema": "public", "name": "t_id_seq"}, "identity": "a", "options": "",
                "grants": [], "comment": null
            }))
            .expect("a sequence"),
        ],
        ..Dependents::default()
    };
    let none = Dependents::default();
    let partitions = [(3, RelName::new("public", "t_1"))];
    let leaf_statements = |shares_identity| {
        let plan = plan(&Swap {
            from: Side {
                table: &twin,
                dependents: &numbers,
                partitions: &partitions,
            },
            to: Side {
                table: &legacy,
                dependents: &none,
                partitions: &[],
            },
            away: &Ident::new("t_partitioned"),
            partition_key: &Ident::new("id"),
            restore_via_root: &[],
            shares_identity,
            suffix: "_partitioned",
        });
        let all = statements(&plan).into_iter();
        all.filter(|statement| statement.starts_with("ALTER TABLE \"public\".\"t_1\""))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        leaf_statements(false),
        ["ALTER TABLE \"public\".\"t_1\" ALTER COLUMN \"id\" DROP DEFAULT"]
    );
    assert_eq!(leaf_statements(true), Vec::<String>::new());
}
