//! How PostgreSQL stores jsonb, made from its text: containers of entries, each a kind and a length or an end.

use crate::spec::numeric;

const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
const SCALAR: u32 = 0x1000_0000;

const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
const HAS_END: u32 = 0x8000_0000;

enum Json {
    Null,
    Bool(bool),
    /// As it is printed.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What PostgreSQL stores for a jsonb that it prints as `text`, without the length word of the whole.
pub fn stored(text: &str) -> Vec<u8> {
    let mut rest = text;
    let json = parse(&mut rest);
    assert_eq!(rest.trim(), "", "{text}");
    let mut out = vec![];
    match json {
        Json::Array(_) | Json::Object(_) => {
            container(&json, &mut out);
        }
        scalar => elements(ARRAY | SCALAR, &[], &[scalar], &mut out),
    }
    out
}

/// Writes an array or an object; gives its length with the padding before it.
fn container(json: &Json, out: &mut Vec<u8>) -> u32 {
    let begin = out.len();
    pad(out);
    match json {
        Json::Array(values) => elements(ARRAY, &[], values, out),
        Json::Object(pairs) => {
            // The server has sorted them already when it prints them: by length, then by bytes.
            let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
            assert!(keys.windows(2).all(|k| (k[0].len(), k[0]) < (k[1].len(), k[1])));
            let values: Vec<&Json> = pairs.iter().map(|(_, value)| value).collect();
            elements(OBJECT, &keys, &values, out);
        }
        _ => unreachable!("a scalar is no container"),
    }
    (out.len() - begin) as u32
}

fn elements<J: std::borrow::Borrow<Json>>(kind: u32, keys: &[&str], values: &[J], out: &mut Vec<u8>) {
    out.extend((values.len() as u32 | kind).to_le_bytes());
    let entries = out.len();
    let count = keys.len() + values.len();
    out.resize(entries + 4 * count, 0);
    let begin = out.len();
    for i in 0..count {
        let (kind, length) = match keys.get(i) {
            Some(key) => {
                out.extend(key.as_bytes());
                (0, key.len() as u32)
            }
            None => element(values[i - keys.len()].borrow(), out),
        };
        // Every 32nd entry has its end instead of its length.
        let entry = match i % 32 {
            0 => kind | HAS_END | (out.len() - begin) as u32,
            _ => kind | length,
        };
        out[entries + 4 * i..entries + 4 * i + 4].copy_from_slice(&entry.to_le_bytes());
    }
}

/// Writes one element; gives its kind and its length with padding.
fn element(json: &Json, out: &mut Vec<u8>) -> (u32, u32) {
    let begin = out.len();
    match json {
        Json::Null => (NULL, 0),
        Json::Bool(value) => (if *value { TRUE } else { FALSE }, 0),
        Json::String(text) => {
            out.extend(text.as_bytes());
            (0, text.len() as u32)
        }
        Json::Number(text) => {
            pad(out);
            let value = number(text);
            out.extend(((value.len() as u32 + 4) << 2).to_le_bytes());
            out.extend(value);
            (NUMERIC, (out.len() - begin) as u32)
        }
        _ => (CONTAINER, container(json, out)),
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A number as it is printed: sign, digits, point, digits.
fn number(text: &str) -> Vec<u8> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let width = whole.len().next_multiple_of(4);
    let mut digits = format!("{whole:0>width$}{decimals}");
    digits += &"0".repeat(decimals.len().next_multiple_of(4) - decimals.len());
    let groups = digits.as_bytes().chunks(4);
    let groups = groups.map(|g| g.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0')));
    numeric(
        negative,
        (width / 4) as i16 - 1,
        decimals.len() as u16,
        groups.collect(),
    )
}

/// Takes a value from the front.
fn parse(rest: &mut &str) -> Json {
    *rest = rest.trim_start();
    match rest.as_bytes()[0] {
        b'{' => {
            let mut pairs = vec![];
            list(rest, '}', |rest| {
                let key = string(rest);
                take(rest, ':');
                pairs.push((key, parse(rest)));
            });
            Json::Object(pairs)
        }
        b'[' => {
            let mut values = vec![];
            list(rest, ']', |rest| values.push(parse(rest)));
            Json::Array(values)
        }
        b'"' => Json::String(string(rest)),
        _ => {
            let end = rest.find([',', ']', '}']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            *rest = after;
            match word.trim() {
                "null" => Json::Null,
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                number => Json::Number(number.to_string()),
            }
        }
    }
}

/// Opening bracket, elements with commas, closing bracket.
fn list(rest: &mut &str, close: char, mut element: impl FnMut(&mut &str)) {
    *rest = rest[1..].trim_start();
    while !rest.starts_with(close) {
        element(rest);
        *rest = rest.trim_start();
        if rest.starts_with(',') {
            *rest = rest[1..].trim_start();
        }
    }
    *rest = &rest[1..];
}

fn take(rest: &mut &str, what: char) {
    *rest = rest.trim_start().strip_prefix(what).expect("it is JSON");
}

fn string(rest: &mut &str) -> String {
    *rest = rest.trim_start();
    let mut escaped = false;
    let end = rest[1..]
        .find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })
        .expect("a string ends");
    let (text, after) = rest.split_at(end + 2);
    *rest = after;
    serde_json::from_str(text).expect("a string of JSON")
}
