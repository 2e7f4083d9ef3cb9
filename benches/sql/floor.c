/* The least that a trigger can do to write the second row: find its place, the old row by the primary key, the heap tuple and
   the index entries, by the server's own functions. It keeps nothing right that something else does meanwhile, takes each index
   to be on plain columns and a partial one to hold, and rows to stay in their partition: a floor to measure against, no sync.
   Its argument is the table that follows, plain or partitioned by range of one column, of the same columns. */
#include "postgres.h"
#include "fmgr.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(floor_write);
PG_FUNCTION_INFO_V1(floor_nothing);

/* The table that a trigger names, looked up once: each partition has a trigger of its own. */
static Oid
target(Trigger *trigger)
{
	static Oid	known[256];
	static Oid	table[256];
	int			at = trigger->tgoid % lengthof(known);

	if (known[at] != trigger->tgoid)
	{
		table[at] = RangeVarGetRelid(makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(trigger->tgargs[0]))),
									 NoLock, false);
		known[at] = trigger->tgoid;
	}
	return table[at];
}

/* The table itself, or the partition of the row, open for writing. */
static Relation
open_place(Oid table, HeapTuple row, TupleDesc desc)
{
	Relation	root = table_open(table, RowExclusiveLock);
	Relation	leaf;
	PartitionDesc partitions;
	PartitionKey key;
	Datum		value;
	bool		isnull;
	bool		equal;
	int			at;

	if (root->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return root;
	partitions = RelationGetPartitionDesc(root, true);
	key = RelationGetPartitionKey(root);
	value = heap_getattr(row, key->partattrs[0], desc, &isnull);
	at = partition_range_datum_bsearch(key->partsupfunc, key->partcollation, partitions->boundinfo, 1, &value, &equal);
	at = partitions->boundinfo->indexes[at + 1];
	if (at < 0)
		at = partitions->boundinfo->default_index;
	leaf = table_open(partitions->oids[at], RowExclusiveLock);
	table_close(root, NoLock);
	return leaf;
}

/* Leaves the row of the same primary key in the slot. */
static void
find(Relation leaf, HeapTuple row, TupleDesc desc, Snapshot snapshot, TupleTableSlot *slot)
{
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData keys[INDEX_MAX_KEYS];
	int			n;

	RelationGetIndexList(leaf);
	index = index_open(leaf->rd_pkindex, RowExclusiveLock);
	n = index->rd_index->indnkeyatts;
	for (int i = 0; i < n; i++)
	{
		AttrNumber	column = index->rd_index->indkey.values[i];
		bool		isnull;
		Datum		value = heap_getattr(row, column, desc, &isnull);
		Oid			operator = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i], index->rd_opcintype[i],
												   BTEqualStrategyNumber);

		ScanKeyInit(&keys[i], i + 1, BTEqualStrategyNumber, get_opcode(operator), value);
	}
	scan = index_beginscan(leaf, index, snapshot, n, 0);
	index_rescan(scan, keys, n, NULL, 0);
	if (!index_getnext_slot(scan, ForwardScanDirection, slot))
		elog(ERROR, "the row is not there");
	ExecMaterializeSlot(slot);
	index_endscan(scan);
	index_close(index, NoLock);
}

static void
insert_entries(Relation leaf, TupleTableSlot *slot)
{
	List	   *indexes = RelationGetIndexList(leaf);
	ListCell   *cell;
	IndexInfo	info;

	memset(&info, 0, sizeof info);
	info.type = T_IndexInfo;
	info.ii_ReadyForInserts = true;
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), RowExclusiveLock);
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		for (int i = 0; i < index->rd_index->indnatts; i++)
			values[i] = slot_getattr(slot, index->rd_index->indkey.values[i], &nulls[i]);
		index_insert(index, values, nulls, &slot->tts_tid, leaf,
					 index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, &info);
		index_close(index, NoLock);
	}
	list_free(indexes);
}

Datum
floor_write(PG_FUNCTION_ARGS)
{
	TriggerData *t = (TriggerData *) fcinfo->context;
	TupleDesc	desc = RelationGetDescr(t->tg_relation);
	Oid			table = target(t->tg_trigger);
	bool		inserts = TRIGGER_FIRED_BY_INSERT(t->tg_event);
	bool		updates = TRIGGER_FIRED_BY_UPDATE(t->tg_event);
	Relation	leaf;
	TupleTableSlot *new_row;
	TupleTableSlot *old_row;
	Snapshot	snapshot;
	TM_FailureData failure;

	leaf = open_place(table, t->tg_trigtuple, desc);
	new_row = MakeSingleTupleTableSlot(RelationGetDescr(leaf), &TTSOpsHeapTuple);
	if (inserts || updates)
		ExecForceStoreHeapTuple(updates ? t->tg_newtuple : t->tg_trigtuple, new_row, false);
	if (inserts)
	{
		table_tuple_insert(leaf, new_row, GetCurrentCommandId(true), 0, NULL);
		insert_entries(leaf, new_row);
	}
	else
	{
		old_row = table_slot_create(leaf, NULL);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		find(leaf, t->tg_trigtuple, desc, snapshot, old_row);
		if (updates)
		{
			LockTupleMode mode;
#if PG_VERSION_NUM >= 160000
			TU_UpdateIndexes entries;
#else
			bool		entries;
#endif

			if (table_tuple_update(leaf, &old_row->tts_tid, new_row, GetCurrentCommandId(true), snapshot, InvalidSnapshot,
								   true, &failure, &mode, &entries) != TM_Ok)
				elog(ERROR, "the row was changed meanwhile");
			if (entries)
				insert_entries(leaf, new_row);
		}
		else if (table_tuple_delete(leaf, &old_row->tts_tid, GetCurrentCommandId(true), snapshot, InvalidSnapshot,
									true, &failure, false) != TM_Ok)
			elog(ERROR, "the row was changed meanwhile");
		UnregisterSnapshot(snapshot);
		ExecDropSingleTupleTableSlot(old_row);
	}
	ExecDropSingleTupleTableSlot(new_row);
	table_close(leaf, NoLock);
	return PointerGetDatum(NULL);
}

/* What the server takes to call a trigger, and to keep a transition table for it. */
Datum
floor_nothing(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(NULL);
}
