//! Values as Python prints them: chat templates are written for Jinja on Python.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use serde_json::Value as Json;

/// Lists and mappings nested deeper than this are refused, so that printing one cannot overflow the stack.
/// JSON that was parsed by serde_json is nested at most 128 levels deep.
pub(crate) const DEPTH_MAX: usize = 256;

/// JSON as a value of templates. Lists and mappings in it turn into text as in Python wherever that happens:
/// printed, joined, trimmed.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Array(items) => {
            PrintedAsPython::wrap(items.iter().map(from_json).collect::<Vec<Value>>().into())
        }
        Json::Object(fields) => PrintedAsPython::wrap(
            fields.iter().map(|(name, value)| (name.as_str(), from_json(value))).collect(),
        ),
        scalar => Value::from_serialize(scalar),
    }
}

/// A list or mapping of the engine in all but its text.
#[derive(Debug)]
struct PrintedAsPython(DynObject);

impl PrintedAsPython {
    fn wrap(value: Value) -> Value {
        match value.as_object() {
            Some(object) => Value::from_object(Self(object.clone())),
            None => value,
        }
    }
}

impl Object for PrintedAsPython {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        self.0.repr()
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get_value(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.0.enumerate()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write_repr(&mut text, &Value::from_dyn_object(self.0.clone()), 0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// Prints an expression of a template: `str(value)`.
pub(crate) fn format_python(out: &mut Output, _: &State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let mut text = String::new();
            write_repr(&mut text, value, 0)?;
            out.write_str(&text)?;
        }
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

/// `repr(number)`: the shortest digits that read back as the same double, with an exponent outside of 1e-4 to
/// 1e16.
pub(crate) fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string().to_lowercase();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ if number.fract() == 0.0 => format!("{number}.0"),
        _ => number.to_string(),
    }
}

/// The filter `length`: in characters for a text, 0 for what is undefined.
pub(crate) fn length(value: &Value) -> Result<usize, Error> {
    match value.len() {
        Some(length) => Ok(length),
        None if value.is_undefined() => Ok(0),
        None => {
            let detail = format!("a value of kind {} has no length", value.kind());
            Err(Error::new(ErrorKind::InvalidOperation, detail))
        }
    }
}

/// The test `sequence`: what has a length and items in Python, so texts and mappings as well.
pub(crate) fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Iterable => value.len().is_some(),
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map => true,
        _ => false,
    }
}

/// The test `iterable`.
pub(crate) fn is_iterable(value: &Value) -> bool {
    value.kind() == ValueKind::Iterable || is_sequence(value)
}

/// The test `number`: a Python bool is one.
pub(crate) fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// An error for a value that is nested too deeply to be printed.
pub(crate) fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value is nested more than {DEPTH_MAX} levels deep"))
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::String => write_string_repr(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&float_repr(f64::try_from(value.clone())?)),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Single quotes, unless the text has some and no double ones.
fn write_string_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => out.extend(['\\', quote]),
            _ if character.is_control() => out.push_str(&format!("\\x{:02x}", character as u32)),
            _ => out.push(character),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Right column: `repr` of CPython 3.11.
    #[test]
    fn floats_print_as_in_python() {
        for (number, repr) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float_repr(number), repr);
        }
    }

    #[test]
    fn strings_choose_their_quotes() {
        let repr = |text| {
            let mut out = String::new();
            write_string_repr(&mut out, text);
            out
        };
        assert_eq!(repr("a"), "'a'");
        assert_eq!(repr("it's"), "\"it's\"");
        assert_eq!(repr("it's \"so\""), r#"'it\'s "so"'"#);
        assert_eq!(repr("\\\n\u{1}"), r"'\\\n\x01'");
    }
}
