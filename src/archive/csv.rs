//! CSV as the server's COPY reads it: a comma between fields, nothing for NULL, quotes where they are needed. Pure.

/// Puts a value that is not NULL behind what `out` has. An empty one is quoted, or it would be NULL; so is one that begins with
/// a backslash, which could end the data (`\.`).
pub fn field(out: &mut Vec<u8>, value: &[u8]) {
    let is_special = |b: &u8| matches!(b, b',' | b'"' | b'\n' | b'\r');
    if !value.is_empty() && value[0] != b'\\' && !value.iter().any(is_special) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for piece in value.split_inclusive(|b| *b == b'"') {
        out.extend_from_slice(piece);
        if piece.ends_with(b"\"") {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

/// A line of names.
pub fn header<'a>(out: &mut Vec<u8>, names: impl IntoIterator<Item = &'a str>) {
    for (i, name) in names.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        field(out, name.as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> String {
        let mut out = Vec::new();
        field(&mut out, value.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_could_be_misread_is_quoted() {
        assert_eq!(of("plain text"), "plain text");
        assert_eq!(of(""), "\"\"");
        assert_eq!(of("\\."), "\"\\.\"");
        assert_eq!(of("a,b"), "\"a,b\"");
        assert_eq!(of("a\nb"), "\"a\nb\"");
        assert_eq!(of("say \"no\""), "\"say \"\"no\"\"\"");
        assert_eq!(of("\""), "\"\"\"\"");
    }

    #[test]
    fn names_in_a_header_are_fields_too() {
        let mut out = Vec::new();
        header(&mut out, ["id", "a,b"]);
        assert_eq!(out, b"id,\"a,b\"\n");
    }
}
