//! Tells rows of the legacy to the partitions that they belong to, as the twin would, from where the columns of the key
//! lie in their tuples.
#![allow(unsafe_code)]

use super::codec::fetch_datum;
use super::encode::Format;
use crate::compat;
use crate::error::{Error, Result};
use crate::sync::routing::Bounds;
use crate::sync::rows::convert;
use crate::sync::side::{Side, Slot};
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::collections::HashMap;

/// A column of the key, as the legacy has it.
struct KeyColumn {
    attribute: usize,
    by_value: bool,
    length: i16,
}

enum Way {
    /// Ranges of whole numbers: their lower bounds, and the partition from there on.
    Numbers {
        from: Vec<i64>,
        partition: Vec<u32>,
        /// The range that took the last row: rows next to each other often belong to one.
        last: usize,
    },
    /// The server's own searches.
    Search(Bounds),
    /// With an executor, where partitions are partitioned themselves or keys are expressions.
    Executor {
        row: Slot,
        as_twin: Slot,
        map: *mut pg_sys::TupleConversionMap,
    },
}

pub struct Router {
    twin: Side,
    key: Vec<KeyColumn>,
    way: Way,
    numbers: HashMap<Oid, u32>,
    /// What rows get that belong to no partition.
    nowhere: u32,
}

impl Router {
    /// `partitions` are numbered in their order.
    ///
    /// # Safety
    /// `legacy` is open until the router is closed.
    pub unsafe fn open(legacy: pg_sys::Relation, twin: Oid, partitions: &[u32]) -> Result<Router> {
        let twin = Side::open_for_reading(twin)?;
        let nowhere = partitions.len() as u32;
        let numbers: HashMap<Oid, u32> = partitions
            .iter()
            .zip(0u32..)
            .map(|(oid, number)| (Oid::from(*oid), number))
            .collect();
        // SAFETY: the twin is open as long as the router.
        unsafe {
            let desc = (*legacy).rd_att;
            let mut key = Vec::new();
            let way = match twin.bounds() {
                Some(bounds) if bounds.leaves().is_some() => {
                    let attributes = compat::attributes(twin.tuple_desc());
                    for number in bounds.key_columns() {
                        let name = attributes[number as usize - 1].attname.data.as_ptr();
                        let attribute = pg_sys::SPI_fnumber(desc, name);
                        if attribute <= 0 {
                            return Err(Error::Internal("the legacy lacks the partition key".into()));
                        }
                        let attribute = attribute as usize - 1;
                        let of_legacy = &compat::attributes(desc)[attribute];
                        key.push(KeyColumn {
                            attribute,
                            by_value: of_legacy.attbyval,
                            length: of_legacy.attlen,
                        });
                    }
                    match bounds.whole_numbers() {
                        Some(ranges) => Way::Numbers {
                            from: ranges.iter().map(|(from, _)| *from).collect(),
                            partition: ranges
                                .iter()
                                .map(|(_, oid)| {
                                    oid.and_then(|oid| numbers.get(&oid)).copied().unwrap_or(nowhere)
                                })
                                .collect(),
                            last: 0,
                        },
                        None => Way::Search(bounds),
                    }
                }
                _ => Way::Executor {
                    row: pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsHeapTuple),
                    as_twin: twin.new_slot(),
                    map: pg_sys::convert_tuples_by_name(desc, twin.tuple_desc()),
                },
            };
            Ok(Router {
                twin,
                key,
                way,
                numbers,
                nowhere,
            })
        }
    }

    pub fn close(self) {
        if let Way::Executor { row, as_twin, .. } = self.way {
            // SAFETY: made by `open`; nothing else holds them.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(row);
                pg_sys::ExecDropSingleTupleTableSlot(as_twin);
            }
        }
        self.twin.close();
    }

    /// The number of the partition that a row belongs to. `known` says that `format` has the row's columns at hand.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the legacy, of the format.
    #[inline(always)]
    pub unsafe fn find(
        &mut self,
        tuple: pg_sys::HeapTupleHeader,
        format: &mut Format,
        known: bool,
    ) -> Result<u32> {
        // SAFETY: the caller's; values are of the types of the key.
        unsafe {
            if !known && !self.key.is_empty() {
                let last = self.key.iter().map(|k| k.attribute).max().unwrap_or(0);
                format.find_up_to(tuple, last);
            }
            match &mut self.way {
                Way::Numbers {
                    from,
                    partition,
                    last,
                } => {
                    let key = &self.key[0];
                    let place = format.place(key.attribute);
                    if place.is_null() {
                        // NULL is the default's, which takes whatever no range does.
                        return Ok(self.default_of_null());
                    }
                    let value = match key.length {
                        2 => i64::from(place.cast::<i16>().read_unaligned()),
                        4 => i64::from(place.cast::<i32>().read_unaligned()),
                        _ => place.cast::<i64>().read_unaligned(),
                    };
                    let at = *last;
                    if from[at] > value || from.get(at + 1).is_some_and(|next| *next <= value) {
                        *last = from.partition_point(|f| *f <= value) - 1;
                    }
                    Ok(partition[*last])
                }
                Way::Search(bounds) => {
                    let mut values = [Datum::null(); 32];
                    let mut nulls = [false; 32];
                    let columns = self.key.len();
                    for (i, key) in self.key.iter().enumerate() {
                        let place = format.place(key.attribute);
                        nulls[i] = place.is_null();
                        if !nulls[i] {
                            values[i] = key.datum(place);
                        }
                    }
                    let found = bounds.find_by_key(&mut values[..columns], &mut nulls[..columns]);
                    Ok(self.number(found.map(|target| target.oid)))
                }
                Way::Executor { row, as_twin, map } => {
                    let (row, as_twin, map) = (*row, *as_twin, *map);
                    let mut held = pg_sys::HeapTupleData {
                        t_data: tuple,
                        ..Default::default()
                    };
                    pg_sys::ExecStoreHeapTuple(&mut held, row, false);
                    let leaf = self.twin.locate(convert(map, row, as_twin))?;
                    let oid = (*leaf.relation()).rd_id;
                    pg_sys::ExecClearTuple(row);
                    self.twin.end_row();
                    Ok(self.number(Some(oid)))
                }
            }
        }
    }

    fn number(&self, oid: Option<Oid>) -> u32 {
        oid.and_then(|oid| self.numbers.get(&oid))
            .copied()
            .unwrap_or(self.nowhere)
    }

    #[cold]
    fn default_of_null(&self) -> u32 {
        // SAFETY: the twin is open.
        let found = unsafe {
            self.twin
                .bounds()
                .and_then(|bounds| bounds.find_by_key(&mut [Datum::null()], &mut [true]))
        };
        self.number(found.map(|target| target.oid))
    }
}

impl KeyColumn {
    /// # Safety
    /// `place` points at a value of the column.
    unsafe fn datum(&self, place: *const u8) -> Datum {
        // SAFETY: the caller's.
        unsafe { fetch_datum(place, self.by_value, self.length) }
    }
}
