//! What a statement's text says of a table, as far as that can be told without a parser: whether it names it, whether it names
//! a column, and what its `ON CONFLICT` clauses conflict on. Pure.

/// A word as the server reads it: folded to lower case unless quoted. Or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
}

/// What a row that is there already is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Plain columns, sorted.
    Columns(Vec<String>),
    Constraint(String),
}

/// A statement, or a body of statements, cut into words. Comments and string literals are left out.
#[derive(Debug)]
pub struct SqlText(Vec<Token>);

impl SqlText {
    pub fn new(text: &str) -> Self {
        SqlText(tokens(text))
    }

    fn word(&self, at: usize) -> Option<&str> {
        match self.0.get(at) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.word(at) == Some(word)
    }

    fn is_sign(&self, at: usize, sign: char) -> bool {
        self.0.get(at) == Some(&Token::Sign(sign))
    }

    /// Where the name of a table begins and ends, when `at` is its beginning: with its schema or without.
    fn table_at(&self, at: usize, schema: &str, table: &str) -> Option<usize> {
        if self.is(at, schema) && self.is_sign(at + 1, '.') && self.is(at + 2, table) {
            return Some(at + 3);
        }
        (self.is(at, table) && !self.is_sign(at + 1, '.')).then_some(at + 1)
    }

    /// Whether the table stands where a statement reads or writes one.
    pub fn names_table(&self, schema: &str, table: &str) -> bool {
        const BEFORE: [&str; 6] = ["from", "join", "into", "update", "only", "using"];
        (1..self.0.len()).any(|at| {
            let follows = self.word(at - 1).is_some_and(|word| BEFORE.contains(&word));
            (follows || self.is_sign(at - 1, ',')) && self.table_at(at, schema, table).is_some()
        })
    }

    pub fn names(&self, word: &str) -> bool {
        self.0
            .iter()
            .any(|token| matches!(token, Token::Word(w) if w == word))
    }

    /// Whether it reads, changes or deletes rows, as opposed to only adding some.
    pub fn looks_for_rows(&self) -> bool {
        matches!(
            self.word(0),
            Some("select" | "update" | "delete" | "with" | "merge")
        )
    }

    /// The targets of `INSERT INTO table … ON CONFLICT`, those that are plain columns or a constraint.
    pub fn conflict_targets(&self, schema: &str, table: &str) -> Vec<Target> {
        let mut found = vec![];
        for at in 0..self.0.len() {
            if !(self.is(at, "insert") && self.is(at + 1, "into")) {
                continue;
            }
            let Some(end) = self.table_at(at + 2, schema, table) else {
                continue;
            };
            if let Some(target) = self.target_after(end) {
                found.push(target);
            }
        }
        found
    }

    fn target_after(&self, start: usize) -> Option<Target> {
        let is_end = |at: &usize| self.is_sign(*at, ';') || self.is(*at, "insert");
        let end = (start..self.0.len()).find(is_end).unwrap_or(self.0.len());
        let at = (start..end).find(|at| self.is(*at, "on") && self.is(at + 1, "conflict"))? + 2;
        if self.is(at, "on") && self.is(at + 1, "constraint") {
            return self.word(at + 2).map(|name| Target::Constraint(name.into()));
        }
        if !self.is_sign(at, '(') {
            return None;
        }
        let mut columns = vec![];
        let mut at = at + 1;
        loop {
            columns.push(self.word(at)?.to_string());
            match self.0.get(at + 1)? {
                Token::Sign(',') => at += 2,
                Token::Sign(')') => break,
                _ => return None,
            }
        }
        columns.sort();
        Some(Target::Columns(columns))
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = vec![];
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        at = match (c, next) {
            ('-', Some('-')) => until(&chars, at, |c| c == '\n'),
            ('/', Some('*')) => end_of_comment(&chars, at + 2),
            ('\'', _) => end_of_quoted(&chars, at + 1, '\'', &mut String::new()),
            ('"', _) => {
                let mut word = String::new();
                let end = end_of_quoted(&chars, at + 1, '"', &mut word);
                tokens.push(Token::Word(word));
                end
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let end = until(&chars, at, |c| !(c.is_alphanumeric() || c == '_' || c == '$'));
                let word: String = chars[at..end].iter().collect();
                tokens.push(Token::Word(word.to_lowercase()));
                end
            }
            (c, _) if c.is_whitespace() => at + 1,
            (c, _) => {
                tokens.push(Token::Sign(c));
                at + 1
            }
        };
    }
    tokens
}

fn until(chars: &[char], start: usize, ends: impl Fn(char) -> bool) -> usize {
    (start..chars.len())
        .find(|at| ends(chars[*at]))
        .unwrap_or(chars.len())
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    (start..chars.len())
        .find(|at| chars[*at] == '*' && chars.get(at + 1) == Some(&'/'))
        .map_or(chars.len(), |at| at + 2)
}

/// Behind the closing quote; what is quoted goes into `word`, doubled quotes as one.
fn end_of_quoted(chars: &[char], start: usize, quote: char, word: &mut String) -> usize {
    let mut at = start;
    while let Some(&c) = chars.get(at) {
        if c == quote {
            if chars.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        word.push(c);
        at += 1;
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<Target> {
        SqlText::new(text).conflict_targets("public", "t")
    }

    fn columns(names: &[&str]) -> Target {
        Target::Columns(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn the_target_of_an_upsert_is_found_in_any_spelling() {
        for text in [
            "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO NOTHING",
            "insert into public.t as x select 1 on conflict(\"id\") where true do update set n = 1",
            "BEGIN PERFORM 1; INSERT INTO \"t\" VALUES ($1) -- a comment\n ON /* one */ CONFLICT ( ID ) DO NOTHING; END",
        ] {
            assert_eq!(targets(text), [columns(&["id"])], "{text}");
        }
        assert_eq!(
            targets("INSERT INTO t VALUES (1) ON CONFLICT (b, a) DO NOTHING"),
            [columns(&["a", "b"])]
        );
        assert_eq!(
            targets("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING"),
            [Target::Constraint("t_pkey".into())]
        );
    }

    #[test]
    fn what_conflicts_on_something_else_is_none() {
        for text in [
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (1) ON CONFLICT (lower(x)) DO NOTHING",
            "INSERT INTO t VALUES (1); INSERT INTO u VALUES (1) ON CONFLICT (id) DO NOTHING",
            "INSERT INTO other.t VALUES (1) ON CONFLICT (id) DO NOTHING",
            "INSERT INTO \"T\" VALUES (1) ON CONFLICT (id) DO NOTHING",
            "INSERT INTO t VALUES ('ON CONFLICT (id)')",
        ] {
            assert_eq!(targets(text), [], "{text}");
        }
    }

    #[test]
    fn a_table_is_named_where_a_statement_takes_one() {
        let names = |text: &str| SqlText::new(text).names_table("s", "t");
        for text in [
            "SELECT * FROM t",
            "SELECT 1 FROM a, s.t",
            "UPDATE ONLY s.\"t\" SET x = 1",
            "DELETE FROM a USING t",
            "SELECT 1 FROM a LEFT JOIN t ON true",
        ] {
            assert!(names(text), "{text}");
        }
        for text in [
            "SELECT t FROM a",
            "SELECT * FROM other.t",
            "SELECT 'from t'",
            "SELECT * FROM t.a",
        ] {
            assert!(!names(text), "{text}");
        }
    }

    #[test]
    fn texts_that_end_in_the_middle_are_read_to_their_end() {
        for text in [
            "SELECT 'x",
            "SELECT \"x",
            "/* x",
            "INSERT INTO t ON CONFLICT (id",
            "",
        ] {
            assert_eq!(targets(text), [], "{text}");
        }
    }
}
