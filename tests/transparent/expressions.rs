//! The expressions of generated queries.

use crate::grammar::{Grammar, numbered};
use crate::world::{Relation, Ty};
use rand::Rng;

/// What a FROM item offers.
#[derive(Debug, Clone)]
pub struct Source {
    pub alias: String,
    pub columns: Vec<(String, Ty)>,
    /// Its `id` is unique.
    pub has_key: bool,
    /// A row of it is a `revenues`.
    pub is_revenues: bool,
    /// A table of a pair itself, that has system columns.
    pub is_table: bool,
}

impl Source {
    pub fn of_relation(alias: &str, relation: &Relation) -> Source {
        Source {
            columns: relation
                .columns
                .iter()
                .map(|(name, ty)| ((*name).into(), *ty))
                .collect(),
            has_key: relation.has_key,
            is_revenues: relation.is_revenues,
            is_table: crate::world::PAIRS.iter().any(|p| p.name == relation.name),
            alias: alias.into(),
        }
    }

    pub fn of_columns(alias: &str, columns: &[(String, Ty)]) -> Source {
        Source {
            alias: alias.into(),
            columns: columns.to_vec(),
            has_key: false,
            is_revenues: false,
            is_table: false,
        }
    }

    pub fn derived(alias: &str, types: &[Ty]) -> Source {
        Source::of_columns(alias, &numbered(types))
    }

    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == column)
    }

    /// With other names for its first columns. Gives those names too.
    pub fn renamed(&self, count: usize) -> (Source, Vec<String>) {
        let mut source = self.clone();
        for (n, (name, _)) in source.columns.iter_mut().take(count).enumerate() {
            *name = format!("renamed{n}");
        }
        source.has_key = false;
        let names = source
            .columns
            .iter()
            .take(count)
            .map(|(n, _)| n.clone())
            .collect();
        (source, names)
    }
}

impl Grammar<'_> {
    /// A number, as a constant or as a parameter.
    pub fn int_constant(&mut self, least: i64, most: i64) -> String {
        let value = self.random.random_range(least..=most);
        self.constant(Ty::Int, value.to_string())
    }

    fn constant(&mut self, ty: Ty, value: String) -> String {
        if self.with_parameters && self.chance(60) {
            self.out.parameters.push((ty, value));
            return format!("${}", self.out.parameters.len());
        }
        match ty {
            Ty::Text => format!("'{value}'"),
            _ => value,
        }
    }

    /// A column of this type.
    pub fn column(&mut self, ty: Ty, of: &[Source]) -> Option<String> {
        let found: Vec<String> = of
            .iter()
            .flat_map(|s| {
                s.columns
                    .iter()
                    .filter(|(_, t)| *t == ty)
                    .map(|(name, _)| format!("{}.{name}", s.alias))
            })
            .collect();
        (!found.is_empty()).then(|| self.pick(&found).clone())
    }

    fn some_revenues(&mut self, scope: &[Source]) -> Option<String> {
        let found: Vec<_> = scope.iter().filter(|s| s.is_revenues).collect();
        (!found.is_empty()).then(|| self.pick(&found).alias.clone())
    }

    pub fn expression(&mut self, ty: Ty, scope: &[Source], depth: u32) -> String {
        if self.chance(15)
            && let Some(whole) = self.of_whole_row(ty, scope)
        {
            return whole;
        }
        if depth > 0 && self.chance(8) {
            return self.scalar_subquery(ty, scope, depth);
        }
        let column = self.column(ty, scope);
        match column {
            Some(column) if self.chance(65) => column,
            _ => self.composed(ty, scope, depth),
        }
    }

    fn composed(&mut self, ty: Ty, scope: &[Source], depth: u32) -> String {
        let deeper = depth.saturating_sub(1);
        if depth == 0 {
            return self.leaf(ty);
        }
        if self.chance(15) {
            let condition = self.condition(scope, deeper);
            let (a, b) = (
                self.expression(ty, scope, deeper),
                self.expression(ty, scope, deeper),
            );
            let cast = ty.sql();
            return format!("CASE WHEN {condition} THEN ({a})::{cast} ELSE ({b})::{cast} END");
        }
        match ty {
            Ty::Int => match self.random.random_range(0..5) {
                0 => format!(
                    "({} + {})::bigint",
                    self.expression(ty, scope, deeper),
                    self.int_constant(0, 9)
                ),
                1 => format!("length({})::bigint", self.expression(Ty::Text, scope, deeper)),
                2 => format!(
                    "extract(month FROM {})::bigint",
                    self.expression(Ty::Time, scope, deeper)
                ),
                3 => {
                    self.uses("function");
                    let name = *self.pick(&["total_of", "count_in_plpgsql"]);
                    format!("{name}({})", self.int_constant(0, 12))
                }
                _ => self.leaf(ty),
            },
            Ty::Num => match self.random.random_range(0..3) {
                0 => format!("({})::numeric(14,2)", self.expression(Ty::Int, scope, deeper)),
                1 => format!(
                    "({} - {})::numeric(14,2)",
                    self.expression(ty, scope, deeper),
                    self.expression(ty, scope, deeper)
                ),
                _ => self.leaf(ty),
            },
            Ty::Text => match self.random.random_range(0..4) {
                0 => format!("upper({})", self.expression(ty, scope, deeper)),
                1 => format!("coalesce({}, 'none')", self.expression(ty, scope, deeper)),
                2 => format!("({})::text", self.expression(Ty::Int, scope, deeper)),
                _ => format!("({})::text", self.expression(Ty::Json, scope, deeper)),
            },
            Ty::Bool => format!("({})", self.condition(scope, deeper)),
            Ty::Time => match self.random.random_range(0..2) {
                0 => format!("date_trunc('month', {})", self.expression(ty, scope, deeper)),
                _ => self.leaf(ty),
            },
            Ty::Json => match self.random.random_range(0..2) {
                0 => format!("to_jsonb({})", self.expression(Ty::Int, scope, deeper)),
                _ => format!(
                    "jsonb_build_object('k', {}, 'v', {})",
                    self.expression(Ty::Text, scope, deeper),
                    self.expression(Ty::Num, scope, deeper)
                ),
            },
            Ty::Array => self.leaf(ty),
        }
    }

    fn leaf(&mut self, ty: Ty) -> String {
        match ty {
            Ty::Int => format!("{}::bigint", self.int_constant(0, 200)),
            Ty::Num => format!("{}::numeric(14,2)", self.int_constant(0, 200)),
            Ty::Text => {
                let value = *self.pick(&["rent", "fee", "tax", "ann", "aa", "memo 3"]);
                format!("{}::text", self.constant(Ty::Text, value.into()))
            }
            Ty::Bool => (*self.pick(&["true", "false", "NULL::boolean"])).into(),
            Ty::Time => self.moment(),
            Ty::Json => "'{\"a\": 1}'::jsonb".into(),
            Ty::Array => "'{1,2}'::int[]".into(),
        }
    }

    /// A time in the half year that the partitions cover, as a constant or from a parameter.
    fn moment(&mut self) -> String {
        if self.with_parameters {
            let days = self.int_constant(0, 180);
            return format!("(timestamp '2026-01-01' + {days}::int * interval '1 day')");
        }
        let (month, day) = (self.random.random_range(1..=6), self.random.random_range(1..=28));
        format!("timestamp '2026-{month:02}-{day:02}'")
    }

    /// What is made of whole rows.
    fn of_whole_row(&mut self, ty: Ty, scope: &[Source]) -> Option<String> {
        if scope.is_empty() {
            return None;
        }
        let row = self.pick(scope).alias.clone();
        let revenues = self.some_revenues(scope);
        self.uses("whole row");
        Some(match (ty, revenues) {
            (Ty::Text, Some(r)) if self.chance(60) => match self.random.random_range(0..5) {
                0 => format!("describe({r})"),
                1 => format!("describe_in_plpgsql({r})"),
                2 => format!("{r}.describe"),
                3 => format!("pg_typeof({r})::text"),
                _ => format!("describe(coalesce({r}, one_of(2)))"),
            },
            (Ty::Text, _) => match self.random.random_range(0..3) {
                0 => format!("{row}::text"),
                1 => format!("row_to_json({row})::text"),
                _ => format!("ROW({row}.*)::text"),
            },
            (Ty::Json, _) => format!("to_jsonb({row})"),
            (Ty::Bool, Some(r)) if self.chance(40) => format!("({r} = one_of(3))"),
            (Ty::Bool, _) => match self.random.random_range(0..4) {
                0 => format!("({row} IS NULL)"),
                1 => format!("({row} IS NOT NULL)"),
                2 => format!("({row} IS DISTINCT FROM NULL)"),
                _ => format!("({row}.* = {row}.*)"),
            },
            (Ty::Int, Some(r)) => match self.random.random_range(0..3) {
                0 => format!("({r}).cents"),
                1 => format!("(SELECT ({r}).twice)"),
                _ => format!("(coalesce({r}, one_of(2))).id"),
            },
            _ => return None,
        })
    }

    fn scalar_subquery(&mut self, ty: Ty, scope: &[Source], depth: u32) -> String {
        self.uses("scalar subquery");
        let (from, source) = self.plain_item();
        let own = [source];
        let mut both = own.to_vec();
        both.extend(scope.iter().cloned());
        let condition = self.condition(&both, depth - 1);
        let aggregate = self.aggregate(ty, &own, 0);
        format!("(SELECT {aggregate} FROM {from} WHERE {condition})")
    }

    /// A table of a pair.
    fn plain_item(&mut self) -> (String, Source) {
        self.out.names_pair = true;
        let alias = self.alias();
        let relation = self.pick(crate::world::PAIRS);
        (
            format!("{} {alias}", relation.name),
            Source::of_relation(&alias, relation),
        )
    }

    pub fn condition(&mut self, scope: &[Source], depth: u32) -> String {
        match self.random.random_range(0..21) {
            0..4 => {
                let left = self.column(Ty::Int, scope).unwrap_or_else(|| "1".into());
                let operator = *self.pick(&["=", "<", ">=", "<>", "="]);
                format!("{left} {operator} {}", self.int_constant(0, 180))
            }
            4..7 => match self.column(Ty::Time, scope) {
                Some(at) => {
                    let (from, to) = (self.moment(), self.moment());
                    let range = format!("{at} >= {from} AND {at} < {to}");
                    let half = format!("{at} < {to}");
                    if self.with_parameters || self.chance(60) {
                        range
                    } else {
                        half
                    }
                }
                None => "true".into(),
            },
            7 => match self.column(Ty::Text, scope) {
                Some(text) => {
                    let value = *self.pick(&["rent", "fee", "tax", "aa"]);
                    format!("{text} = {}", self.constant(Ty::Text, value.into()))
                }
                None => "true".into(),
            },
            8 => {
                let left = self.column(Ty::Int, scope).unwrap_or_else(|| "2".into());
                let list: Vec<_> = (0..3).map(|_| self.int_constant(0, 60)).collect();
                format!("{left} IN ({})", list.join(", "))
            }
            9 => {
                let ty = *self.pick(&[Ty::Int, Ty::Text, Ty::Time, Ty::Bool]);
                match self.column(ty, scope) {
                    Some(column) => format!("{column} IS {}NULL", self.pick(&["", "NOT "])),
                    None => "true".into(),
                }
            }
            10 if depth > 0 => {
                let (a, b) = (self.condition(scope, depth - 1), self.condition(scope, depth - 1));
                format!("({a} OR {b})")
            }
            11 if depth > 0 => format!("NOT ({})", self.condition(scope, depth - 1)),
            12 | 13 if depth > 0 => {
                self.uses("EXISTS");
                let (from, source) = self.plain_item();
                let mut both = vec![source.clone()];
                both.extend(scope.iter().cloned());
                let condition = self.condition(&both, depth - 1);
                let not = if self.chance(30) { "NOT " } else { "" };
                let outer = self.column(Ty::Int, scope).unwrap_or_else(|| "3".into());
                format!(
                    "{not}EXISTS (SELECT FROM {from} WHERE {}.id = {outer} AND {condition})",
                    source.alias
                )
            }
            14 | 15 if depth > 0 => {
                self.uses("IN subquery");
                let left = self.column(Ty::Int, scope).unwrap_or_else(|| "4".into());
                let (inner, _) = self.query(depth.min(2) - 1, Some(&[Ty::Int]), &[]);
                let form = *self.pick(&["IN", "NOT IN", "= ANY", "> ALL"]);
                format!("{left} {form} ({inner})")
            }
            16 => match self.column(Ty::Bool, scope) {
                Some(column) => format!("{column} IS {}", self.pick(&["TRUE", "NOT TRUE", "NOT FALSE"])),
                None => "true".into(),
            },
            17 => match self.some_revenues(scope) {
                Some(r) => {
                    self.uses("whole row");
                    format!("describe({r}) > {}", self.constant(Ty::Text, "1".into()))
                }
                None => "true".into(),
            },
            18 => match self.column(Ty::Array, scope) {
                Some(array) => format!("{} = ANY ({array})", self.int_constant(0, 4)),
                None => "true".into(),
            },
            19 if self.chance(15) => self.system_column(scope),
            _ => match self.column(Ty::Int, scope) {
                Some(column) => format!("{column} BETWEEN {} AND 150", self.int_constant(0, 40)),
                None => "true".into(),
            },
        }
    }

    /// What keeps a query on the legacy.
    fn system_column(&mut self, scope: &[Source]) -> String {
        match scope.iter().find(|s| s.is_table) {
            Some(source) => {
                self.out.stays = true;
                self.uses("system column");
                let alias = &source.alias;
                match self.random.random_range(0..3) {
                    0 => format!("{alias}.ctid > '(0,5)'"),
                    1 => format!("{alias}.tableoid::regclass::text !~ '20'"),
                    _ => format!("{alias}.xmin IS NOT NULL"),
                }
            }
            None => "true".into(),
        }
    }

    pub fn aggregate(&mut self, ty: Ty, own: &[Source], depth: u32) -> String {
        let argument = |g: &mut Self, ty| g.expression(ty, own, depth.min(1));
        let filter = if self.chance(15) {
            self.uses("FILTER");
            let condition = self.condition(own, 0);
            format!(" FILTER (WHERE {condition})")
        } else {
            String::new()
        };
        let call = match ty {
            Ty::Int => match self.random.random_range(0..5) {
                0 => "count(*)".into(),
                1 => format!("count(DISTINCT {})", argument(self, Ty::Int)),
                2 => format!("max({})", argument(self, ty)),
                3 => match self.pick(own).alias.clone() {
                    row if self.chance(50) => format!("count({row})"),
                    row => format!("count(DISTINCT {row})"),
                },
                _ => return format!("(sum({}){filter})::bigint", argument(self, ty)),
            },
            Ty::Num => match self.random.random_range(0..3) {
                0 => return format!("(avg({}){filter})::numeric(14,2)", argument(self, Ty::Int)),
                1 => format!("min({})", argument(self, ty)),
                _ => format!("sum({})", argument(self, ty)),
            },
            Ty::Text => match self.random.random_range(0..3) {
                0 => {
                    let text = argument(self, ty);
                    if text.contains('$') {
                        format!("min({text})")
                    } else {
                        format!("string_agg({text}, ',' ORDER BY {text})")
                    }
                }
                1 => match self.pick(own).clone() {
                    row if row.has_key => {
                        format!("array_agg({0} ORDER BY {0}.id, {0}::text)::text", row.alias)
                    }
                    row => format!("array_agg({0} ORDER BY {0}::text)::text", row.alias),
                },
                _ => format!("max({})", argument(self, ty)),
            },
            Ty::Bool => format!("{}({})", self.pick(&["bool_and", "bool_or"]), argument(self, ty)),
            Ty::Time => format!("{}({})", self.pick(&["min", "max"]), argument(self, ty)),
            Ty::Json => {
                let row = self.pick(own).alias.clone();
                format!("jsonb_agg(to_jsonb({row}) ORDER BY {row}::text)")
            }
            Ty::Array => "'{}'::int[]".into(),
        };
        // A cast after the call would come before FILTER.
        match call.strip_suffix("::text") {
            Some(call) => format!("({call}{filter})::text"),
            None if call.starts_with('\'') => call,
            None => format!("{call}{filter}"),
        }
    }

    /// A window function that does not depend on the order of equal rows.
    pub fn window(&mut self, ty: Ty, own: &[Source]) -> Option<String> {
        let partition = self.column(Ty::Int, own)?;
        let order = self.column(Ty::Int, own)?;
        self.uses("window function");
        let over = match self.random.random_range(0..3) {
            0 => format!("OVER (PARTITION BY {partition})"),
            1 => format!("OVER (PARTITION BY {partition} ORDER BY {order})"),
            _ => format!("OVER (ORDER BY {order} RANGE BETWEEN 5 PRECEDING AND CURRENT ROW)"),
        };
        let argument = self.column(ty, own)?;
        Some(match ty {
            Ty::Int => match self.random.random_range(0..3) {
                0 => format!("(sum({argument}) {over})::bigint"),
                1 => format!("rank() OVER (PARTITION BY {partition} ORDER BY {order})"),
                _ => format!("count(*) {over}"),
            },
            Ty::Num => format!("(sum({argument}) {over})::numeric(14,2)"),
            Ty::Text | Ty::Time => format!("max({argument}) {over}"),
            Ty::Bool => format!("bool_or({argument}) {over}"),
            Ty::Json | Ty::Array => return None,
        })
    }
}
