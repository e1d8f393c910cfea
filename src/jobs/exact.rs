//! Numbers in serialised state as texts: `serde_json` reads a number to within one unit of the last place, `str::parse` exactly, and a decision may
//! hang on the last bit of a loss.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// One number, for `#[serde(with)]`.
pub(super) mod number {
    use super::{Deserialize, Deserializer, Error, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(x)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A number that may be missing, for `#[serde(with)]`.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Error, Serializer};

    pub(crate) fn serialize<S: Serializer>(x: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match x {
            Some(x) => serializer.collect_str(x),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|x| x.parse().map_err(D::Error::custom)).transpose()
    }
}

/// A list of numbers, for `#[serde(with)]`.
pub(super) mod list {
    use super::{Deserialize, Deserializer, Error, Serializer};

    pub(in super::super) fn serialize<'a, S: Serializer>(
        list: impl IntoIterator<Item = &'a f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.into_iter().map(f64::to_string))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, C: FromIterator<f64>>(deserializer: D) -> Result<C, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|x| x.parse().map_err(D::Error::custom)).collect()
    }
}
