//! The `tojson` filter of transformers: `json.dumps` of Python, without the escapes for HTML that Jinja's own
//! has.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::python_value::{DEPTH_MAX, float_repr, too_deep};

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`. Keys keep their
/// order.
pub(crate) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let writer = JsonWriter::new(&options)?;
    options.assert_all_used()?;
    let mut out = String::new();
    writer.write(&mut out, value, 0)?;
    Ok(out)
}

struct JsonWriter {
    ensure_ascii: bool,
    /// Put once a level at the beginning of each line; `None` keeps everything on one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl JsonWriter {
    fn new(options: &Kwargs) -> Result<Self, Error> {
        let indent = match options.get::<Option<Value>>("indent")? {
            None => None,
            Some(indent) => match indent.as_str() {
                Some(indent) => Some(indent.to_owned()),
                None => Some(" ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize)),
            },
        };
        let (item_separator, key_separator) =
            match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
                Some([item, key]) => (item.clone(), key.clone()),
                Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators are two strings")),
                None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
                None => (", ".to_owned(), ": ".to_owned()),
            };
        Ok(Self {
            ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            indent,
            item_separator,
            key_separator,
            sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        })
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)?),
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.write_list(out, value, depth)?,
            ValueKind::Map => self.write_map(out, value, depth)?,
            kind => {
                let detail = format!("a value of kind {kind} is not JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        }
        Ok(())
    }

    fn write_list(&self, out: &mut String, list: &Value, depth: usize) -> Result<(), Error> {
        let mut is_empty = true;
        out.push('[');
        for item in list.try_iter()? {
            self.start_item(out, is_empty, depth + 1);
            self.write(out, &item, depth + 1)?;
            is_empty = false;
        }
        self.end_items(out, is_empty, depth);
        out.push(']');
        Ok(())
    }

    fn write_map(&self, out: &mut String, map: &Value, depth: usize) -> Result<(), Error> {
        let mut entries = Vec::new();
        for key in map.try_iter()? {
            entries.push((key_text(&key)?, map.get_item(&key)?));
        }
        if self.sort_keys {
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        out.push('{');
        for (index, (key, item)) in entries.iter().enumerate() {
            self.start_item(out, index == 0, depth + 1);
            self.write_string(out, key);
            out.push_str(&self.key_separator);
            self.write(out, item, depth + 1)?;
        }
        self.end_items(out, entries.is_empty(), depth);
        out.push('}');
        Ok(())
    }

    fn start_item(&self, out: &mut String, is_first: bool, depth: usize) {
        if !is_first {
            out.push_str(&self.item_separator);
        }
        self.start_line(out, depth);
    }

    fn end_items(&self, out: &mut String, is_empty: bool, depth: usize) {
        if !is_empty {
            self.start_line(out, depth);
        }
    }

    fn start_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if character < ' ' || (self.ensure_ascii && !(' '..='~').contains(&character)) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}"); // a String takes everything
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    let number = f64::try_from(value.clone())?;
    Ok(match number {
        _ if number.is_nan() => "NaN".to_owned(),
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => float_repr(number),
    })
}

/// Keys that are not strings are written as JSON writes them, between quotes.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => number(key),
        kind => Err(Error::new(ErrorKind::InvalidOperation, format!("a key of kind {kind} is not JSON"))),
    }
}
