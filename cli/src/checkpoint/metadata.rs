//! Metadata as JSON, without the vocabularies.

use models::gguf::{Array, Metadata, Value};
use serde_json::{Map, Value as Json, json};

/// Arrays of more entries are shown by their length.
const ENTRIES_MAX: usize = 1000;

/// How many entries of such an array are shown.
const ENTRIES_SHOWN: usize = 8;

/// All of a GGUF's metadata, in the order of the file. An array of over 1,000 entries is `{"length": …, "first": […]}`.
pub fn of_gguf(metadata: &Metadata) -> Map<String, Json> {
    metadata.iter().map(|(key, value)| (key.to_owned(), of_value(value))).collect()
}

/// A `config.json`, with long arrays shortened in the same way.
pub fn shortened(json: Json) -> Json {
    match json {
        Json::Array(mut entries) if entries.len() > ENTRIES_MAX => {
            let length = entries.len();
            entries.truncate(ENTRIES_SHOWN);
            long(length, entries)
        }
        Json::Array(entries) => entries.into_iter().map(shortened).collect(),
        Json::Object(fields) => fields.into_iter().map(|(name, value)| (name, shortened(value))).collect(),
        other => other,
    }
}

fn of_value(value: &Value) -> Json {
    match value {
        Value::Array(array) if array.len() > ENTRIES_MAX => long(array.len(), entries(array, ENTRIES_SHOWN)),
        Value::Array(array) => Json::Array(entries(array, ENTRIES_MAX)),
        Value::String(text) => json!(text),
        Value::Bool(value) => json!(value),
        Value::F32(number) => finite(value, f64::from(*number)),
        Value::F64(number) => finite(value, *number),
        _ => whole(value),
    }
}

fn long(length: usize, first: Vec<Json>) -> Json {
    json!({ "length": length, "first": first })
}

/// JSON has neither infinities nor NaN.
fn finite(value: &Value, number: f64) -> Json {
    value.as_number().map_or_else(|| json!(number.to_string()), |number| json!(number))
}

fn whole(value: &Value) -> Json {
    let number = value.as_integer().unwrap_or_default();
    u64::try_from(number).map_or_else(|_| json!(i64::try_from(number).unwrap_or_default()), |n| json!(n))
}

fn entries(array: &Array, max: usize) -> Vec<Json> {
    fn first<T: Clone>(values: &[T], max: usize, wrap: fn(T) -> Value) -> Vec<Json> {
        values.iter().take(max).map(|value| of_value(&wrap(value.clone()))).collect()
    }
    match array {
        Array::U8(values) => first(values, max, Value::U8),
        Array::I8(values) => first(values, max, Value::I8),
        Array::U16(values) => first(values, max, Value::U16),
        Array::I16(values) => first(values, max, Value::I16),
        Array::U32(values) => first(values, max, Value::U32),
        Array::I32(values) => first(values, max, Value::I32),
        Array::F32(values) => first(values, max, Value::F32),
        Array::Bool(values) => first(values, max, Value::Bool),
        Array::String(values) => first(values, max, Value::String),
        Array::U64(values) => first(values, max, Value::U64),
        Array::I64(values) => first(values, max, Value::I64),
        Array::F64(values) => first(values, max, Value::F64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_json_form_and_long_arrays_a_length() {
        assert_eq!(of_value(&Value::F32(1e-5)), json!(1e-5));
        assert_eq!(of_value(&Value::F32(f32::NAN)), json!("NaN"));
        assert_eq!(of_value(&Value::I64(i64::MIN)), json!(i64::MIN));
        assert_eq!(of_value(&Value::U64(u64::MAX)), json!(u64::MAX));
        let ids = |n| Value::Array(Array::I32((0..n).collect()));
        assert_eq!(of_value(&ids(3)), json!([0, 1, 2]));
        assert_eq!(of_value(&ids(1000)).as_array().map(Vec::len), Some(1000));
        assert_eq!(of_value(&ids(1001)), json!({"length": 1001, "first": [0, 1, 2, 3, 4, 5, 6, 7]}));
        let nested = shortened(json!({"a": [vec![0; 1001]]}));
        assert_eq!(nested["a"][0]["length"], 1001);
    }
}
