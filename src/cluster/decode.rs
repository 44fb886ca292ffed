//! Objects of which one that cannot be decoded does not fail a whole list or watch.

use std::borrow::Cow;
use std::sync::Arc;

use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object, or its metadata and an error if it cannot be decoded. Unlike kube's
/// [`DeserializeGuard`] it shares the object, so that the cache can hand it out without a copy.
#[derive(Clone, Debug)]
pub struct MaybeDecoded<K>(pub Result<Arc<K>, InvalidObject>);

impl<K> MaybeDecoded<K> {
    /// The object, if it could be decoded.
    pub fn decoded(&self) -> Option<&Arc<K>> {
        self.0.as_ref().ok()
    }
}

impl<'de, K: Resource + Deserialize<'de>> Deserialize<'de> for MaybeDecoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let DeserializeGuard(object) = DeserializeGuard::deserialize(deserializer)?;
        Ok(Self(object.map(Arc::new)))
    }
}

impl<K: Resource + Clone> Resource for MaybeDecoded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(invalid) => &invalid.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => Arc::make_mut(object).meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}

/// An object, or what is stored if that cannot be decoded: money may depend on what it still shows.
#[derive(Clone, Debug)]
pub enum Lenient<K> {
    /// The object.
    Decoded(K),
    /// What is stored.
    Undecodable(Box<Undecodable>),
}

impl<K> Lenient<K> {
    /// The object, if it could be decoded.
    pub fn decoded(&self) -> Option<&K> {
        match self {
            Self::Decoded(object) => Some(object),
            Self::Undecodable(_) => None,
        }
    }
}

/// A stored object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Undecodable {
    pub metadata: ObjectMeta,
    /// The object as stored.
    pub stored: Value,
}

impl Undecodable {
    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Value::deserialize(deserializer)?;
        match K::deserialize(&stored) {
            Ok(object) => Ok(Self::Decoded(object)),
            Err(_) => {
                let metadata = stored.get("metadata").cloned().unwrap_or_default();
                Ok(Self::Undecodable(Box::new(Undecodable {
                    metadata: ObjectMeta::deserialize(metadata).unwrap_or_default(),
                    stored,
                })))
            }
        }
    }
}

impl<K: Resource + Clone> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Decoded(object) => object.meta(),
            Self::Undecodable(undecodable) => &undecodable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Decoded(object) => object.meta_mut(),
            Self::Undecodable(undecodable) => &mut undecodable.metadata,
        }
    }
}
