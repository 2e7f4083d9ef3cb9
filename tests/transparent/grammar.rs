//! Generates SELECTs over [`crate::world`] whose answer is one multiset: no LIMIT without a total order, no aggregate or
//! window function that depends on the order of rows, no floating point.

use crate::expressions::Source;
use crate::world::{OTHERS, PAIRS, Relation, Ty};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// A query, and what is known about it.
#[derive(Debug, Clone, Default)]
pub struct Generated {
    pub sql: String,
    /// The values of `$1` … , with their types, when it was to have parameters.
    pub parameters: Vec<(Ty, String)>,
    /// Names a pair, or a view over one.
    pub names_pair: bool,
    /// Uses what keeps it on the legacy.
    pub stays: bool,
    /// What is in it, for the totals.
    pub features: Vec<&'static str>,
}

pub struct Grammar<'a> {
    pub random: &'a mut ChaCha8Rng,
    pub out: Generated,
    /// Whether constants become parameters.
    pub with_parameters: bool,
    aliases: u32,
    /// CTEs in scope: name, columns.
    ctes: Vec<(String, Vec<(String, Ty)>)>,
}

/// Gives the next query of a stream of random numbers.
pub fn generate(random: &mut ChaCha8Rng, with_parameters: bool) -> Generated {
    let mut grammar = Grammar {
        random,
        out: Generated::default(),
        with_parameters,
        aliases: 0,
        ctes: vec![],
    };
    let (sql, _) = grammar.query(3, None, &[]);
    grammar.out.sql = sql;
    grammar.out
}

const TYPES: [Ty; 7] = [Ty::Int, Ty::Int, Ty::Num, Ty::Text, Ty::Bool, Ty::Time, Ty::Json];

impl Grammar<'_> {
    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        of.choose(self.random).expect("there is something to choose from")
    }

    pub fn uses(&mut self, feature: &'static str) {
        self.out.features.push(feature);
    }

    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("t{}", self.aliases)
    }

    /// A whole query with columns `c1` … ; of these types when they are given.
    pub fn query(&mut self, depth: u32, types: Option<&[Ty]>, outer: &[Source]) -> (String, Vec<Ty>) {
        let ctes = self.ctes.len();
        let mut with = String::new();
        if depth > 1 && self.chance(15) {
            with = self.ctes(depth - 1);
        }
        let (mut sql, types) = if depth > 1 && self.chance(14) {
            self.set_operation(depth - 1, types, outer)
        } else {
            self.select(depth, types, outer)
        };
        if self.chance(25) {
            let order: Vec<_> = (1..=types.len())
                .map(|n| {
                    format!(
                        "{n}{}",
                        self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])
                    )
                })
                .collect();
            sql += &format!(" ORDER BY {}", order.join(", "));
            if self.chance(60) {
                self.uses("LIMIT");
                let limit = self.int_constant(0, 30);
                sql += &format!(" LIMIT {limit}");
                if self.chance(40) {
                    let offset = self.int_constant(0, 10);
                    sql += &format!(" OFFSET {offset}");
                }
            }
        }
        self.ctes.truncate(ctes);
        (format!("{with}{sql}"), types)
    }

    fn ctes(&mut self, depth: u32) -> String {
        self.uses("CTE");
        if self.chance(20) {
            return self.recursive_cte();
        }
        let mut parts = vec![];
        for _ in 0..self.random.random_range(1..3) {
            let name = self.alias();
            let (sql, types) = self.query(depth, None, &[]);
            let how = self.pick(&["", "MATERIALIZED ", "NOT MATERIALIZED "]);
            parts.push(format!("{name} AS {how}({sql})"));
            self.ctes.push((name, numbered(&types)));
        }
        format!("WITH {} ", parts.join(", "))
    }

    fn recursive_cte(&mut self) -> String {
        self.uses("recursive CTE");
        self.out.names_pair = true;
        let name = self.alias();
        let pair = self.pick(&["revenues", "stays", "ledger"]);
        let step = self.random.random_range(3..20);
        self.ctes.push((
            name.clone(),
            vec![
                ("c1".into(), Ty::Int),
                ("c2".into(), Ty::Int),
                ("c3".into(), Ty::Int),
            ],
        ));
        format!(
            "WITH RECURSIVE {name}(c1, c2, c3) AS (SELECT id::bigint, org::bigint, 1::bigint FROM {pair} WHERE id < 5
             UNION SELECT x.id, x.org, n.c3 + 1 FROM {pair} x JOIN {name} n ON x.id = n.c1 + {step} WHERE n.c3 < 5) "
        )
    }

    fn set_operation(&mut self, depth: u32, types: Option<&[Ty]>, outer: &[Source]) -> (String, Vec<Ty>) {
        self.uses("set operation");
        let (left, types) = self.select(depth, types, outer);
        let operation = *self.pick(&[
            "UNION ALL",
            "UNION ALL",
            "UNION",
            "INTERSECT",
            "EXCEPT",
            "INTERSECT ALL",
            "EXCEPT ALL",
        ]);
        let (right, _) = self.query(depth, Some(&types), outer);
        // Its outputs have no names of their own where they come from a SELECT *.
        (format!("({left}) {operation} ({right})"), types)
    }

    /// SELECT … FROM … WHERE … GROUP BY …
    fn select(&mut self, depth: u32, types: Option<&[Ty]>, outer: &[Source]) -> (String, Vec<Ty>) {
        let (from, sources) = self.from(depth, outer);
        let mut scope = sources.clone();
        scope.extend(outer.iter().cloned());
        let mut conditions = vec![];
        for _ in 0..self.random.random_range(0..3) {
            conditions.push(self.condition(&scope, depth));
        }
        let types: Vec<Ty> = match types {
            Some(types) => types.to_vec(),
            None => (0..self.random.random_range(1..5))
                .map(|_| *self.pick(&TYPES))
                .collect(),
        };
        let place = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        let tail = format!("FROM {from}{place}");
        let sql = if self.chance(30) {
            self.grouped(&types, &tail, &sources, depth)
        } else {
            self.plain(&types, &tail, &sources, &scope, depth)
        };
        (sql, types)
    }

    fn plain(&mut self, types: &[Ty], tail: &str, own: &[Source], scope: &[Source], depth: u32) -> String {
        let windows = self.chance(15);
        let outputs: Vec<String> = types
            .iter()
            .map(|ty| {
                let found = if windows && self.chance(60) {
                    self.window(*ty, own)
                } else {
                    None
                };
                found.unwrap_or_else(|| self.expression(*ty, scope, depth))
            })
            .collect();
        let distinct = self.chance(12);
        if distinct && self.chance(40) {
            // All columns in the order, so that it does not matter which of the equal ones comes.
            self.uses("DISTINCT ON");
            let order: Vec<_> = (1..=types.len()).map(|n| n.to_string()).collect();
            let inner = format!(
                "SELECT DISTINCT ON (1) {} {tail} ORDER BY {}",
                named(&outputs, types),
                order.join(", ")
            );
            return format!("SELECT * FROM ({inner}) d");
        }
        let distinct = if distinct { "DISTINCT " } else { "" };
        format!("SELECT {distinct}{} {tail}", named(&outputs, types))
    }

    fn grouped(&mut self, types: &[Ty], tail: &str, own: &[Source], depth: u32) -> String {
        self.uses("aggregate");
        let mut groups = vec![];
        let mut outputs = vec![];
        let only = self.chance(25);
        for ty in types {
            if !only
                && self.chance(45)
                && let Some(group) = self.column(*ty, own)
            {
                groups.push(group.clone());
                outputs.push(group);
                continue;
            }
            outputs.push(self.aggregate(*ty, own, depth));
        }
        let having = if self.chance(20) {
            format!(" HAVING count(*) > {}", self.int_constant(0, 4))
        } else {
            String::new()
        };
        groups.dedup();
        let list = groups.join(", ");
        let by = match groups.len() {
            0 => String::new(),
            _ if self.chance(70) => format!(" GROUP BY {list}"),
            1 => format!(" GROUP BY ROLLUP ({list})"),
            _ => {
                self.uses("GROUPING SETS");
                let grouping = *self.pick(&["CUBE", "ROLLUP", "sets"]);
                if grouping == "sets" {
                    format!(" GROUP BY GROUPING SETS (({list}), ({}), ())", groups[0])
                } else {
                    format!(" GROUP BY {grouping} ({list})")
                }
            }
        };
        format!("SELECT {} {tail}{by}{having}", named(&outputs, types))
    }

    /// A FROM list, and what it offers.
    fn from(&mut self, depth: u32, outer: &[Source]) -> (String, Vec<Source>) {
        let (mut sql, first) = self.item(depth, outer);
        let mut sources = vec![first];
        let joins = *self.pick(&[0, 0, 0, 1, 1, 2]);
        for _ in 0..joins {
            if depth > 1 && self.chance(18) {
                self.uses("LATERAL");
                let alias = self.alias();
                let mut scope = sources.clone();
                scope.extend(outer.iter().cloned());
                let (inner, types) = self.query(depth - 1, None, &scope);
                let kind = *self.pick(&["CROSS JOIN LATERAL", "LEFT JOIN LATERAL"]);
                let on = if kind.starts_with("LEFT") { " ON true" } else { "" };
                sql += &format!(" {kind} (SELECT * FROM ({inner}) l ORDER BY l::text LIMIT 3) {alias}{on}");
                sources.push(Source::derived(&alias, &types));
                continue;
            }
            let (other, source) = self.item(depth, outer);
            sql = self.join(&sql, &other, &sources, &source);
            sources.push(source);
        }
        (sql, sources)
    }

    fn join(&mut self, left: &str, right: &str, sources: &[Source], source: &Source) -> String {
        let kind = *self.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        self.uses(kind);
        let of = self.pick(sources).clone();
        let keys = ["id", "org", "kind"];
        let shared: Vec<_> = keys.iter().filter(|k| of.has(k) && source.has(k)).collect();
        let on = match shared.first() {
            // By id mostly: by org the rows multiply.
            Some(&&first) => {
                let key = if self.chance(12) {
                    **shared.last().expect("not empty")
                } else {
                    first
                };
                format!("{}.{key} = {}.{key}", of.alias, source.alias)
            }
            None => {
                let (a, b) = (
                    self.column(Ty::Int, &[of]),
                    self.column(Ty::Int, std::slice::from_ref(source)),
                );
                match (a, b) {
                    (Some(a), Some(b)) => format!("{a} = {b}"),
                    _ if kind == "FULL JOIN" => {
                        return format!(
                            "{left} CROSS JOIN (SELECT * FROM {right} LIMIT 0) {}",
                            source.alias
                        );
                    }
                    _ => "false".into(),
                }
            }
        };
        format!("{left} {kind} {right} ON {on}")
    }

    /// A table, view, function, CTE or subquery.
    fn item(&mut self, depth: u32, outer: &[Source]) -> (String, Source) {
        let alias = self.alias();
        if !self.ctes.is_empty() && self.chance(50) {
            let ctes = self.ctes.clone();
            let (name, columns) = self.pick(&ctes);
            return (format!("{name} {alias}"), Source::of_columns(&alias, columns));
        }
        if depth > 1 && self.chance(14) {
            self.uses("subquery");
            // What is outside is in scope only of LATERAL.
            let lateral = if outer.is_empty() { "" } else { "LATERAL " };
            let (inner, types) = self.query(depth - 1, None, outer);
            return (
                format!("{lateral}({inner}) {alias}"),
                Source::derived(&alias, &types),
            );
        }
        let relation: &'static Relation = if self.chance(68) {
            self.pick(PAIRS)
        } else {
            self.pick(OTHERS)
        };
        self.out.names_pair |= relation.routable && !relation.name.contains('(');
        let source = Source::of_relation(&alias, relation);
        let is_table = PAIRS.iter().any(|p| p.name == relation.name);
        if is_table && self.chance(1) {
            self.out.stays = true;
            self.uses("TABLESAMPLE");
            return (
                format!(
                    "{} {alias} TABLESAMPLE BERNOULLI (50) REPEATABLE (7)",
                    relation.name
                ),
                source,
            );
        }
        if is_table && self.chance(3) {
            self.uses("ONLY");
            self.out.stays = true;
            return (format!("ONLY {} {alias}", relation.name), source);
        }
        if is_table && self.chance(5) {
            self.uses("column aliases");
            // The first columns get other names; the others keep theirs.
            let (renamed, names) = source.renamed(2);
            return (
                format!("{} AS {alias}({})", relation.name, names.join(", ")),
                renamed,
            );
        }
        (format!("{} {alias}", relation.name), source)
    }
}

/// `expression AS c1, …`, cast so that the same type comes from each part of a set operation.
fn named(outputs: &[String], types: &[Ty]) -> String {
    let list: Vec<_> = outputs
        .iter()
        .zip(types)
        .enumerate()
        .map(|(n, (e, ty))| format!("({e})::{} AS c{}", ty.sql(), n + 1))
        .collect();
    list.join(", ")
}

pub fn numbered(types: &[Ty]) -> Vec<(String, Ty)> {
    types
        .iter()
        .enumerate()
        .map(|(n, ty)| (format!("c{}", n + 1), *ty))
        .collect()
}
