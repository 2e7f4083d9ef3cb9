//! Which partition takes a row: the search of `ExecFindPartition`, over what the relation cache already has, without
//! building the partition's executor state.
#![allow(unsafe_code)]

use super::side::Slot;
use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::ffi::c_int;

/// The most columns that a partition key has (`PARTITION_MAX_KEYS`).
const MAX_KEYS: usize = 32;

/// The partition bounds of an open table, valid while it is open.
#[derive(Clone, Copy)]
pub struct Bounds {
    key: *mut compat::PartitionKey,
    partitions: pg_sys::PartitionDesc,
}

/// A partition that takes a row.
#[derive(Clone, Copy)]
pub struct Target {
    pub oid: Oid,
    /// Its bounds follow from those of its siblings: they may have changed when it is locked at last.
    pub is_default: bool,
}

impl Bounds {
    /// Of a partitioned table; none where the key has expressions, which need an executor.
    ///
    /// # Safety
    /// `relation` is open.
    pub unsafe fn of(relation: pg_sys::Relation) -> Option<Bounds> {
        // SAFETY: both belong to the relation's cache entry, which is pinned while the relation is open.
        unsafe {
            let key = compat::RelationGetPartitionKey(relation);
            if key.is_null() || !(*key).expressions.is_null() {
                return None;
            }
            let partitions = pg_sys::RelationGetPartitionDesc(relation, true);
            Some(Bounds { key, partitions })
        }
    }

    /// The partition for `row`, a row of the table; none where there is none, or where it is partitioned itself.
    ///
    /// # Safety
    /// The table is still open.
    pub unsafe fn find(&self, row: Slot) -> Option<Target> {
        // SAFETY: arrays of a partition key have as many elements as it has columns, which are MAX_KEYS at most; indexes
        // that the searches give are within the bounds' arrays, as in `get_partition_for_tuple` of execPartition.c.
        unsafe {
            let columns = (*self.key).columns as usize;
            let mut values = [Datum::null(); MAX_KEYS];
            let mut nulls = [false; MAX_KEYS];
            for i in 0..columns {
                let number = c_int::from(*(*self.key).attributes.add(i));
                values[i] = pg_sys::slot_getattr(row, number, &mut nulls[i]);
            }
            self.find_by_key(&mut values[..columns], &mut nulls[..columns])
        }
    }

    /// The columns of the key, as attribute numbers of the table.
    ///
    /// # Safety
    /// The table is still open.
    pub unsafe fn key_columns(&self) -> Vec<i16> {
        // SAFETY: the array has as many elements as the key has columns.
        unsafe { std::slice::from_raw_parts((*self.key).attributes, (*self.key).columns as usize) }.to_vec()
    }

    /// The partitions right below the table; none where one of them is partitioned itself.
    ///
    /// # Safety
    /// The table is still open.
    pub unsafe fn leaves(&self) -> Option<Vec<Oid>> {
        // SAFETY: both arrays have an element a partition.
        unsafe {
            let partitions = &*self.partitions;
            let all = 0..partitions.nparts as usize;
            all.map(|i| (*partitions.is_leaf.add(i)).then(|| *partitions.oids.add(i)))
                .collect()
        }
    }

    /// The bounds of a table that is partitioned by ranges of one column whose order is that of whole numbers: from
    /// each lower bound on the partition that takes what is there, if any, the first of them with the least bound.
    ///
    /// # Safety
    /// The table is still open.
    pub unsafe fn whole_numbers(&self) -> Option<Vec<(i64, Option<Oid>)>> {
        const PLAIN: [u32; 5] = [
            pg_sys::F_BTINT2CMP,
            pg_sys::F_BTINT4CMP,
            pg_sys::F_BTINT8CMP,
            pg_sys::F_DATE_CMP,
            pg_sys::F_TIMESTAMP_CMP,
        ];
        // SAFETY: a range has a row of bounds and kinds a datum, each with an element a column; indexes are one more.
        unsafe {
            let (key, partitions) = (&*self.key, &*self.partitions);
            if key.columns != 1 || partitions.nparts == 0 {
                return None;
            }
            let bounds = &*partitions.boundinfo;
            let compare = (*key.functions).fn_oid.to_u32();
            if bounds.strategy as u8 != b'r'
                || !(PLAIN.contains(&compare) || compare == pg_sys::F_TIMESTAMPTZ_CMP)
            {
                return None;
            }
            let partition = |i: usize| {
                let index = *bounds.indexes.add(i);
                let index = if index < 0 { bounds.default_index } else { index };
                (index >= 0).then(|| *partitions.oids.add(index as usize))
            };
            let mut ranges = vec![(i64::MIN, partition(0))];
            for i in 0..bounds.ndatums as usize {
                let datum = **bounds.datums.add(i);
                let from = match **bounds.kind.add(i) {
                    pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MINVALUE => i64::MIN,
                    pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MAXVALUE => break, // no value is there
                    _ => match compare {
                        pg_sys::F_BTINT2CMP => i64::from(datum.value() as i16),
                        pg_sys::F_BTINT4CMP | pg_sys::F_DATE_CMP => i64::from(datum.value() as i32),
                        _ => datum.value() as i64,
                    },
                };
                ranges.push((from, partition(i + 1)));
            }
            Some(ranges)
        }
    }

    /// As [`Bounds::find`], for the values of the key's columns.
    ///
    /// # Safety
    /// The table is still open; there are as many values as the key has columns.
    pub unsafe fn find_by_key(&self, values: &mut [Datum], nulls: &mut [bool]) -> Option<Target> {
        // SAFETY: as in `find`.
        unsafe {
            let (key, partitions) = (&*self.key, &*self.partitions);
            if partitions.nparts == 0 {
                return None;
            }
            let bounds = &*partitions.boundinfo;
            let columns = values.len();
            let any_null = nulls.contains(&true);
            let (functions, collations) = (key.functions, key.collations);
            let mut equal = false;
            let index = match bounds.strategy as u8 {
                b'h' => {
                    let hash = pg_sys::compute_partition_hash_value(
                        columns as c_int,
                        functions,
                        collations,
                        values.as_mut_ptr(),
                        nulls.as_mut_ptr(),
                    );
                    *bounds.indexes.add((hash % bounds.nindexes as u64) as usize)
                }
                b'l' if any_null => bounds.null_index,
                b'l' => {
                    let at = pg_sys::partition_list_bsearch(
                        functions,
                        collations,
                        partitions.boundinfo,
                        values[0],
                        &mut equal,
                    );
                    if at >= 0 && equal {
                        *bounds.indexes.add(at as usize)
                    } else {
                        -1
                    }
                }
                b'r' if any_null => -1,
                b'r' => {
                    let at = pg_sys::partition_range_datum_bsearch(
                        functions,
                        collations,
                        partitions.boundinfo,
                        columns as c_int,
                        values.as_mut_ptr(),
                        &mut equal,
                    );
                    *bounds.indexes.add((at + 1) as usize)
                }
                _ => return None,
            };
            let index = if index < 0 { bounds.default_index } else { index };
            if index < 0 || !*partitions.is_leaf.add(index as usize) {
                return None;
            }
            Some(Target {
                oid: *partitions.oids.add(index as usize),
                is_default: index == bounds.default_index,
            })
        }
    }
}
