//! JSON schemas for types that accept several JSON types.

/// Documents `$type`, which serde reads and writes, as any of `$variants`.
///
/// poem-openapi's own union says `type: object` beside its alternatives, which no string satisfies.
macro_rules! any_of {
    ($type:ty, $name:literal, [$($variant:ty),+]) => {
        impl ::poem_openapi::types::Type for $type {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> ::std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn schema_ref() -> ::poem_openapi::registry::MetaSchemaRef {
                use ::poem_openapi::registry::{MetaSchema, MetaSchemaRef};
                MetaSchemaRef::Inline(Box::new(MetaSchema {
                    any_of: vec![$(<$variant as ::poem_openapi::types::Type>::schema_ref()),+],
                    ..MetaSchema::ANY
                }))
            }

            fn register(registry: &mut ::poem_openapi::registry::Registry) {
                $(<$variant as ::poem_openapi::types::Type>::register(registry);)+
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl ::poem_openapi::types::ParseFromJSON for $type {
            fn parse_from_json(
                value: Option<::serde_json::Value>,
            ) -> ::poem_openapi::types::ParseResult<Self> {
                ::serde_json::from_value(value.unwrap_or_default()).map_err(::poem_openapi::types::ParseError::custom)
            }
        }

        impl ::poem_openapi::types::ToJSON for $type {
            fn to_json(&self) -> Option<::serde_json::Value> {
                ::serde_json::to_value(self).ok()
            }
        }
    };
}

pub(super) use any_of;
