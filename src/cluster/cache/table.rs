//! What is kept of each object of a kind of which little is read: its version, and one small value.
//!
//! A reflector keeps whole objects. That is right where a loop reconciles them; for thousands of
//! Services, of which only the name matters, it costs most of the memory of a replica. A table also
//! knows whether a value changed, so an event that changes nothing wakes no loop.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use super::catch_up::Versions;
use crate::cluster::read::ObjectKey;
use crate::leader::lease::ResourceVersion;

/// The values of all objects of a kind. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Table<V> {
    rows: Arc<RwLock<Rows<V>>>,
    listed: Arc<watch::Sender<bool>>,
}

#[derive(Debug)]
struct Rows<V> {
    current: HashMap<ObjectKey, Row<V>>,
    /// Objects of a list that has not been read to its end. Until then, the last one counts.
    next: HashMap<ObjectKey, Row<V>>,
}

#[derive(Debug)]
struct Row<V> {
    version: ResourceVersion,
    value: V,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        let rows = Rows {
            current: HashMap::new(),
            next: HashMap::new(),
        };
        Self {
            rows: Arc::new(RwLock::new(rows)),
            listed: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl<V: Clone + PartialEq> Table<V> {
    /// Stores an object. Says whether its value changed.
    pub(super) fn apply(&self, key: ObjectKey, version: ResourceVersion, value: V) -> bool {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let same = |row: &Row<V>| row.value == value;
        let changed = !rows.current.get(&key).is_some_and(same);
        rows.current.insert(key, Row { version, value });
        changed
    }

    /// Drops an object, and answers with its value.
    pub(super) fn remove(&self, key: &ObjectKey) -> Option<V> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.current.remove(key).map(|row| row.value)
    }

    /// Starts to read a list.
    pub(super) fn begin_list(&self) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.next = HashMap::new();
    }

    /// Stores an object of the list that is being read.
    pub(super) fn list(&self, key: ObjectKey, version: ResourceVersion, value: V) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.next.insert(key, Row { version, value });
    }

    /// Ends the list. Answers with every object whose value differs from the last list or that is
    /// gone, with its last value.
    pub(super) fn end_list(&self) -> Vec<(ObjectKey, V)> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let next = mem::take(&mut rows.next);
        let before = mem::replace(&mut rows.current, next);
        let current = &rows.current;
        let same = |key: &ObjectKey, row: &Row<V>| {
            let known = before.get(key);
            known.is_some_and(|known| known.value == row.value)
        };
        let changed = current.iter().filter(|(key, row)| !same(key, row));
        let gone = before.iter().filter(|(key, _)| !current.contains_key(*key));
        let differing = changed
            .chain(gone)
            .map(|(key, row)| (key.clone(), row.value.clone()))
            .collect();
        drop(rows);
        self.listed.send_replace(true);
        differing
    }

    /// The value of an object, if it exists.
    pub(super) fn get(&self, namespace: Option<&str>, name: &str) -> Option<V> {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.read().current.get(&key).map(|row| row.value.clone())
    }

    /// The values of the objects of a namespace.
    pub(super) fn values_in(&self, namespace: &str) -> Vec<V> {
        let rows = self.read();
        let rows = rows.current.iter();
        rows.filter(|((own, _), _)| own.as_deref() == Some(namespace))
            .map(|(_, row)| row.value.clone())
            .collect()
    }

    /// The values of all objects.
    pub(super) fn values(&self) -> Vec<V> {
        let rows = self.read();
        rows.current.values().map(|row| row.value.clone()).collect()
    }
}

impl<V> Table<V> {
    /// Counts as listed, with what it holds.
    pub(super) fn give_up(&self) {
        self.listed.send_replace(true);
    }

    /// Waits until every object has been listed once.
    pub(super) async fn listed(&self) {
        // The sender is part of this table, so it cannot be gone.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    fn read(&self) -> RwLockReadGuard<'_, Rows<V>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Versions for Table<V> {
    fn versions(&self) -> Vec<(ObjectKey, ResourceVersion)> {
        let rows = self.read();
        let current = rows.current.iter();
        current
            .map(|(key, row)| (key.clone(), row.version.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        (Some("shop".to_owned()), name.to_owned())
    }

    fn version(number: u64) -> ResourceVersion {
        ResourceVersion(number.to_string())
    }

    #[test]
    fn event_without_a_different_value_is_no_change() {
        let table = Table::default();
        assert!(table.apply(key("a"), version(1), "red"));
        assert!(!table.apply(key("a"), version(2), "red"));
        assert_eq!(table.versions(), [(key("a"), version(2))]);
        assert!(table.apply(key("a"), version(3), "blue"));
        assert_eq!(table.get(Some("shop"), "a"), Some("blue"));
        assert_eq!(table.get(None, "a"), None);
        assert_eq!(table.values_in("shop"), ["blue"]);
        assert!(table.values_in("bank").is_empty());
        assert_eq!(table.remove(&key("a")), Some("blue"));
        assert_eq!(table.remove(&key("a")), None);
        assert!(table.values().is_empty());
    }

    #[test]
    fn list_replaces_the_last_one_and_reports_the_difference() {
        let table = Table::default();
        for (name, value) in [("kept", 1), ("changed", 2), ("gone", 3)] {
            table.apply(key(name), version(1), value);
        }
        table.begin_list();
        table.list(key("lost"), version(2), 9);
        table.begin_list();
        for (name, value) in [("kept", 1), ("changed", 5), ("created", 4)] {
            table.list(key(name), version(2), value);
        }
        assert_eq!(table.get(Some("shop"), "gone"), Some(3), "not yet");
        let mut differing = table.end_list();
        differing.sort();
        let expected = [("changed", 5), ("created", 4), ("gone", 3)];
        assert_eq!(differing, expected.map(|(name, value)| (key(name), value)));
        assert_eq!(table.values().len(), 3);
    }

    #[tokio::test]
    async fn table_is_listed_after_its_first_list() {
        let table = Table::<()>::default();
        let listed = table.clone();
        let waiting = tokio::spawn(async move { listed.listed().await });
        table.begin_list();
        table.end_list();
        waiting.await.unwrap();
    }
}
