//! What this transaction has to tell of: each key once, however often it changes. Pure: the caller says in which
//! subtransaction it is, and hears which changes are to be written under it.
//!
//! Entries lie in the order of their subtransactions: an inner one begins after and ends before the outer one. So what a
//! subtransaction has done lies at the end, whether it commits or aborts.

use std::collections::HashSet;
use std::rc::Rc;

/// So many changes of one subtransaction are written together.
pub const BATCH: usize = 1_000;
/// So many written ones are remembered, so that they are not written again.
const REMEMBERED: usize = 20_000;

/// A key of a feed, or all of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    pub feed: i32,
    pub key: Option<Key>,
}

/// The values of the key columns, as text in the server's encoding, one after the other: a length (of a NULL the greatest number)
/// in four bytes, and the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn push(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(u32::MAX, |value| value.len() as u32);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(value.unwrap_or_default());
    }

    pub fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let length = u32::from_ne_bytes(*length);
            if length == u32::MAX {
                rest = behind;
                return Some(None);
            }
            let (value, behind) = behind.split_at_checked(length as usize)?;
            rest = behind;
            Some(Some(value))
        })
    }
}

struct Entry {
    change: Rc<Change>,
    subtransaction: u32,
    is_written: bool,
}

#[derive(Default)]
pub struct Buffer {
    entries: Vec<Entry>,
    seen: HashSet<Rc<Change>>,
    unwritten: usize,
    /// The outermost subtransaction in which something happened that the consumer is to be woken for.
    loud: Option<u32>,
}

impl Buffer {
    /// Takes a change in; true when there are enough to be written.
    pub fn add(&mut self, change: Change, subtransaction: u32, notify: bool) -> bool {
        if notify {
            self.loud.get_or_insert(subtransaction);
        }
        if self.seen.contains(&change) {
            return false;
        }
        let change = Rc::new(change);
        self.seen.insert(Rc::clone(&change));
        self.entries.push(Entry {
            change,
            subtransaction,
            is_written: false,
        });
        self.unwritten += 1;
        self.unwritten >= BATCH
    }

    /// Changes of this subtransaction that are not written yet: what an outer one has done must not go with an inner one that aborts.
    pub fn take(&mut self, subtransaction: u32) -> Vec<Rc<Change>> {
        let from = self.beginning_of(subtransaction);
        let mut taken = Vec::new();
        for entry in &mut self.entries[from..] {
            if !entry.is_written {
                entry.is_written = true;
                taken.push(Rc::clone(&entry.change));
            }
        }
        self.unwritten -= taken.len();
        if self.entries.len() > REMEMBERED {
            for entry in self.entries.drain(from..) {
                self.seen.remove(&entry.change);
            }
        }
        taken
    }

    pub fn is_loud(&self) -> bool {
        self.loud.is_some()
    }

    /// What a subtransaction did is from now on what its parent did.
    pub fn commit(&mut self, subtransaction: u32, parent: u32) {
        let from = self.beginning_of(subtransaction);
        for entry in &mut self.entries[from..] {
            entry.subtransaction = parent;
        }
        if self.loud.is_some_and(|loud| loud >= subtransaction) {
            self.loud = Some(parent);
        }
    }

    /// What a subtransaction did has not happened.
    pub fn abort(&mut self, subtransaction: u32) {
        let from = self.beginning_of(subtransaction);
        for entry in self.entries.drain(from..) {
            self.seen.remove(&entry.change);
            self.unwritten -= usize::from(!entry.is_written);
        }
        self.loud = self.loud.filter(|loud| *loud < subtransaction);
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.loud.is_none()
    }

    fn beginning_of(&self, subtransaction: u32) -> usize {
        self.entries
            .partition_point(|entry| entry.subtransaction < subtransaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: i32) -> Change {
        let mut key = Key::default();
        key.push(Some(n.to_string().as_bytes()));
        Change {
            feed: 1,
            key: Some(key),
        }
    }

    fn numbers(changes: &[Rc<Change>]) -> Vec<i32> {
        let number = |c: &Rc<Change>| {
            let key = c.key.as_ref().expect("a key");
            let value = key.values().next().flatten().expect("a value");
            std::str::from_utf8(value)
                .expect("UTF-8")
                .parse()
                .expect("a number")
        };
        changes.iter().map(number).collect()
    }

    #[test]
    fn a_key_gives_back_its_values() {
        let mut key = Key::default();
        let values: [Option<&[u8]>; 4] = [Some(b"a"), None, Some(b""), Some(b"\xff,")];
        for value in values {
            key.push(value);
        }
        assert_eq!(key.values().collect::<Vec<_>>(), values);
    }

    #[test]
    fn a_key_that_changes_twice_is_told_once() {
        let mut buffer = Buffer::default();
        for _ in 0..3 {
            buffer.add(change(1), 1, false);
        }
        assert_eq!(numbers(&buffer.take(1)), [1]);
        buffer.add(change(1), 1, false);
        assert_eq!(numbers(&buffer.take(1)), [] as [i32; 0]);
        assert!(!buffer.is_loud());
    }

    #[test]
    fn what_an_outer_transaction_did_is_not_written_by_an_inner_one() {
        let mut buffer = Buffer::default();
        buffer.add(change(1), 1, true);
        buffer.add(change(2), 5, true);
        assert_eq!(numbers(&buffer.take(5)), [2]);
        buffer.abort(5);
        assert!(buffer.is_loud());
        buffer.add(change(2), 6, true);
        buffer.add(change(3), 7, true);
        buffer.commit(7, 6);
        assert_eq!(numbers(&buffer.take(6)), [2, 3]);
        buffer.commit(6, 1);
        assert_eq!(numbers(&buffer.take(1)), [1]);
    }

    #[test]
    fn what_was_rolled_back_is_told_again_when_it_happens_again() {
        let mut buffer = Buffer::default();
        buffer.add(change(1), 2, true);
        buffer.abort(2);
        assert!(buffer.is_empty());
        buffer.add(change(1), 3, false);
        buffer.commit(3, 1);
        assert_eq!(numbers(&buffer.take(1)), [1]);
    }

    #[test]
    fn memory_does_not_grow_with_the_rows_of_a_transaction() {
        let mut buffer = Buffer::default();
        let mut written = 0;
        for n in 0..100_000 {
            if buffer.add(change(n), 1, false) {
                written += buffer.take(1).len();
            }
            assert!(buffer.entries.len() <= REMEMBERED + BATCH);
            assert_eq!(buffer.entries.len(), buffer.seen.len());
        }
        assert_eq!(written + buffer.take(1).len(), 100_000);
    }
}
