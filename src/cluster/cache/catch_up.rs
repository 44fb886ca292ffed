//! Waits until the cache is as new as the API server was when this was called.
//!
//! A watch may lag behind for as long as it is open, and a new leader must not act on what the last
//! leader has changed since.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use kube::Resource;
use kube::runtime::reflector::Store;
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::cluster::read::{ObjectKey, ObjectVersions, Reader, object_key, object_version};
use crate::leader::lease::ResourceVersion;
use crate::telemetry::causes;

/// How long the cache may take to reach one list before the list is read again: objects on it may
/// have been deleted since.
const LIST_LIFETIME: Duration = Duration::from_secs(1);
const POLL_PERIOD: Duration = Duration::from_millis(5);

/// The objects that a store of the cache holds, and in which versions.
pub(super) trait Versions {
    fn versions(&self) -> Vec<(ObjectKey, ResourceVersion)>;
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Versions for Store<K> {
    fn versions(&self) -> Vec<(ObjectKey, ResourceVersion)> {
        let objects = self.state();
        objects
            .iter()
            .map(|object| (object_key(&**object), object_version(&**object)))
            .collect()
    }
}

/// Waits until a store holds all objects of kind `K` that the API server stored when this was
/// called.
pub(super) async fn catch_up<K>(store: &impl Versions, reader: &Reader)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    loop {
        match reader.object_versions::<K>().await {
            Ok(target) => {
                let begun = Instant::now();
                while begun.elapsed() < LIST_LIFETIME {
                    if has_reached(store.versions().into_iter(), &target) {
                        return;
                    }
                    sleep(POLL_PERIOD).await;
                }
                debug!(kind = %K::kind(&()), "the cache lags behind the API server");
            }
            Err(error) => {
                warn!(kind = %K::kind(&()), error = %causes(&error), "could not verify that the cache is current");
                sleep(LIST_LIFETIME).await;
            }
        }
    }
}

/// Whether the cache holds every listed object in no older version, and no object that was deleted
/// before the list was read.
fn has_reached(
    cached: impl Iterator<Item = (ObjectKey, ResourceVersion)>,
    target: &ObjectVersions,
) -> bool {
    let mut found = 0;
    for (key, version) in cached {
        match target.objects.get(&key) {
            Some(listed) if version.precedes(listed) => return false,
            Some(_) => found += 1,
            None if !target.version.precedes(&version) => return false,
            None => {}
        }
    }
    found == target.objects.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_catches_up_with_listed_versions_and_deletions() {
        let key = |name: &str| (Some("shop".to_owned()), name.to_owned());
        let version = |number: u64| ResourceVersion(number.to_string());
        let objects = |objects: &[(&str, u64)]| -> Vec<_> {
            objects
                .iter()
                .map(|(name, number)| (key(name), version(*number)))
                .collect()
        };
        let target = ObjectVersions {
            version: version(100),
            objects: objects(&[("a", 7), ("b", 95)]).into_iter().collect(),
        };
        for (cached, reached) in [
            (&[("a", 7), ("b", 95)][..], true),
            (&[("a", 101), ("b", 95)], true),
            (&[("a", 7), ("b", 95), ("created-since", 101)], true),
            (&[("a", 7)], false),
            (&[], false),
            (&[("a", 7), ("b", 9)], false),
            (&[("a", 7), ("b", 95), ("deleted", 60)], false),
            (&[("a", 7), ("other", 95)], false),
        ] {
            assert_eq!(
                has_reached(objects(cached).into_iter(), &target),
                reached,
                "{cached:?}"
            );
        }
        assert!(has_reached(std::iter::empty(), &ObjectVersions::default()));
    }
}
