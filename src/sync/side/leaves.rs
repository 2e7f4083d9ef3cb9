//! The tables that rows of a side belong to: itself, or the leaf that the bounds lead to.
#![allow(unsafe_code)]

use super::{Fallback, Side, Slot};
use crate::compat;
use crate::error::{Error, Result};
use crate::sync::kept;
use crate::sync::leaf::{Indexes, Leaf, LeafState};
use crate::sync::relation::{has_indexes, is_deferrable, keep_triggers, new_node, primary_key_index};
use crate::sync::write::KeyScan;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ptr::null_mut;

impl Side {
    /// The table that a row (in this side's format) belongs to.
    ///
    /// # Errors
    /// The server's `23514` when no partition takes the row.
    pub fn locate(&mut self, row: Slot) -> Result<Leaf> {
        // SAFETY: `row` is in this side's format; the relation is open.
        unsafe {
            if !self.partitioned {
                return self.leaf(self.oid);
            }
            let Some(target) = self.bounds.and_then(|bounds| bounds.find(row)) else {
                return self.locate_by_server(row);
            };
            let leaf = self.leaf(target.oid)?;
            if target.is_default {
                // Bounds of a partition that came meanwhile are known only now, with the default partition locked.
                pg_sys::ExecPartitionCheck(leaf.info, Side::to_leaf(&leaf, row, leaf.row), self.estate, true);
            }
            Ok(leaf)
        }
    }

    /// The table `oid`, which is this side or a leaf right below it, open.
    ///
    /// # Safety
    /// The side is open.
    unsafe fn leaf(&mut self, oid: Oid) -> Result<Leaf> {
        if let Some((last, leaf)) = self.last
            && last == oid
        {
            return Ok(leaf);
        }
        // SAFETY: the states live as long as the side. A leaf that was kept is used only when nothing has changed
        // since: to lock it lets this backend hear of that.
        unsafe {
            let known = self.leaves.get(&oid).copied();
            let leaf = match known {
                Some(leaf) if (*leaf.state).is_open => leaf,
                _ => {
                    let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
                    let leaf = match known {
                        Some(leaf) if self.epoch == kept::epoch() => {
                            (*leaf.info).ri_RelationDesc = relation;
                            (*leaf.state).is_open = true;
                            leaf
                        }
                        _ => {
                            kept::track(oid);
                            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
                            let info = new_node::<pg_sys::ResultRelInfo>(pg_sys::NodeTag::T_ResultRelInfo);
                            pg_sys::InitResultRelInfo(info, relation, 1, null_mut(), 0);
                            pg_sys::MemoryContextSwitchTo(previous);
                            let leaf = self.new_leaf(info, false)?;
                            self.leaves.insert(oid, leaf);
                            leaf
                        }
                    };
                    self.opened.push(leaf);
                    leaf
                }
            };
            self.last = Some((oid, leaf));
            Ok(leaf)
        }
    }

    /// As [`Side::locate`], by the server's own routing.
    ///
    /// # Safety
    /// As for [`Side::leaf`].
    unsafe fn locate_by_server(&mut self, row: Slot) -> Result<Leaf> {
        // SAFETY: the routing structures belong to this side, and go when it is closed.
        unsafe {
            let estate = self.estate;
            self.temporary = true;
            if self.fallback.is_none() {
                let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
                let root = new_node::<pg_sys::ResultRelInfo>(pg_sys::NodeTag::T_ResultRelInfo);
                pg_sys::InitResultRelInfo(root, self.relation, 1, null_mut(), 0);
                let modify = new_node::<pg_sys::ModifyTableState>(pg_sys::NodeTag::T_ModifyTableState);
                (*modify).ps.state = estate;
                (*modify).operation = pg_sys::CmdType::CMD_INSERT;
                (*modify).resultRelInfo = root;
                (*modify).rootResultRelInfo = root;
                let routing = compat::ExecSetupPartitionTupleRouting(estate, self.relation);
                pg_sys::MemoryContextSwitchTo(previous);
                self.fallback = Some(Fallback {
                    root,
                    modify,
                    routing,
                });
            }
            let Some(Fallback {
                root,
                modify,
                routing,
            }) = self.fallback
            else {
                return Err(Error::Internal("a side has no routing".into()));
            };
            let info = compat::ExecFindPartition(modify, root, routing, row, estate);
            let oid = (*(*info).ri_RelationDesc).rd_id;
            if let Some(leaf) = self.leaves.get(&oid) {
                return Ok(*leaf);
            }
            let leaf = self.new_leaf(info, true)?;
            if leaf.indexed {
                (*leaf.state).indexes = Indexes::Open(leaf.index_oids());
            }
            self.leaves.insert(oid, leaf);
            self.opened.push(leaf);
            Ok(leaf)
        }
    }

    /// # Safety
    /// `info` belongs to this side, and its relation is open.
    unsafe fn new_leaf(&mut self, info: *mut pg_sys::ResultRelInfo, is_routed: bool) -> Result<Leaf> {
        // SAFETY: the caller's promise.
        unsafe {
            let relation = (*info).ri_RelationDesc;
            if !(*info).ri_FdwRoutine.is_null() {
                return Err(Error::Unsupported {
                    what: "sync into a foreign partition is not supported".into(),
                    hint: "Keep the partitions of a pair local.".into(),
                });
            }
            let key_index = primary_key_index(relation);
            let may_be_double = key_index != Oid::INVALID && is_deferrable(key_index);
            let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let mut state = Box::new(LeafState {
                indexes: Indexes::Unknown,
                scan: (key_index != Oid::INVALID).then(|| KeyScan::new(key_index)),
                is_open: true,
                is_routed,
            });
            keep_triggers(info, self.foreign_keys);
            let desc = pg_sys::CreateTupleDescCopyConstr((*relation).rd_att);
            let kind = pg_sys::table_slot_callbacks(relation);
            let leaf = Leaf {
                info,
                state: &mut *state,
                from_side: if (*relation).rd_id == self.oid {
                    null_mut()
                } else {
                    pg_sys::convert_tuples_by_name(self.desc, desc)
                },
                key_index,
                may_be_double,
                indexed: has_indexes(relation),
                key: pg_sys::MakeSingleTupleTableSlot(desc, kind),
                row: pg_sys::MakeSingleTupleTableSlot(desc, kind),
                found: pg_sys::MakeSingleTupleTableSlot(desc, kind),
            };
            pg_sys::MemoryContextSwitchTo(previous);
            self.states.push(state);
            Ok(leaf)
        }
    }
}
