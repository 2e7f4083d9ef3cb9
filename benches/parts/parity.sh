# shellcheck shell=bash
# Parts "parity_…", in milliseconds and kilobytes: the proof against counting and against a checksum in plain SQL, by workers,
# and when one partition of 24 was written (plain); the same on numeric, jsonb and toasted text (wide); what it takes to
# name ten rows (few); and memory.

PASSES="SELECT bool_and(matches) FROM partition_router.verify('revenues', full => true)"
UNCHANGED="SELECT bool_and(matches) FROM partition_router.verify('revenues')"
ONE_PROCESS='SET max_parallel_workers_per_gather = 0'
COUNT_BOTH='SELECT (SELECT count(*) FROM revenues), (SELECT count(*) FROM revenues_partitioned)'
HASH_BOTH='SELECT (SELECT sum(hash_record_extended(r, 0)::numeric) FROM revenues r),
  (SELECT sum(hash_record_extended(r, 0)::numeric) FROM revenues_partitioned r)'

# proven SCHEMA: a proof that does not pass measures nothing.
proven() { sql "$1" -Atqc "$PASSES" | grep -qx t || die "the sides in schema $1 are not equal"; }

# hot SCHEMA: vacuumed and read once, by all that is measured alike.
hot() {
  sql "$1" -c 'VACUUM ANALYZE revenues' -c 'VACUUM ANALYZE revenues_partitioned' -c "$COUNT_BOTH" >/dev/null
  proven "$1"
}

# The second of two runs in one session: in the first one the system gives the new process the pages of the server's memory one by
# one, which takes as long for whoever asks.
again() {
  local schema=$1 last=${!#}
  shift
  timed "$schema" "$@" "$last"
}

# measure_proof SCHEMA GROUP ROUND VARIANT…: in turns, each in a session of its own.
measure_proof() {
  local schema=$1 group=$2 round=$3 variant
  shift 3
  for variant in $(rotated "$round" "$@"); do
    keep parity "$group" "$variant" "$("proof_$variant" "$schema")"
  done
}

proof_count() { again "$1" "$ONE_PROCESS" "$COUNT_BOTH"; }
proof_parallel() { again "$1" "$COUNT_BOTH"; }
proof_hash() { again "$1" "$ONE_PROCESS" "$HASH_BOTH"; }
proof_ours() { again "$1" "$PASSES"; }
proof_counts() { again "$1" "SELECT bool_and(matches) FROM partition_router.verify('revenues', 'counts', full => true)"; }
proof_one() { timed "$1" "SET $WORKERS_SETTING = 1" "$PASSES"; }
proof_two() { timed "$1" "SET $WORKERS_SETTING = 2" "$PASSES"; }
# What reading the large values takes: a look at their first byte makes the server fetch and unpack all of them.
proof_detoast() {
  local read="SELECT count(*) FILTER (WHERE starts_with(inside, '~')), count(*) FILTER (WHERE starts_with(outside, '~'))"
  again "$1" "$ONE_PROCESS" "$read FROM (SELECT inside, outside FROM revenues UNION ALL SELECT inside, outside FROM revenues_partitioned) r"
}
# One partition of 24 was written since the last pass.
proof_unchanged() {
  sql "$1" -c "UPDATE revenues SET amount_cents = amount_cents + 1 WHERE id = $((BENCH_COPY_ROWS / 2))"
  timed "$1" "$UNCHANGED"
}

WORKERS_SETTING=partition_router.verify_workers

part_parity_plain() {
  local round workers=()
  if has_setting "$WORKERS_SETTING"; then workers=(one two); else note "no $WORKERS_SETTING here: left out"; fi
  legacy parity "$BENCH_COPY_ROWS"
  in_step parity live
  hot parity
  for ((round = 0; round < BENCH_PARITY_ROUNDS; round++)); do
    progress "plain, round $((round + 1)) of $BENCH_PARITY_ROUNDS"
    measure_proof parity plain "$round" count parallel ours counts hash
    ((${#workers[@]} == 0)) || measure_proof parity workers "$round" "${workers[@]}"
    measure_proof parity unchanged "$round" ours unchanged
  done
  drop_schema parity
}

part_parity_wide() {
  local round
  drop_schema wide
  sql wide -c 'CREATE SCHEMA wide' -v rows="$BENCH_WIDE_ROWS" -f "$SQL/wide.sql"
  sql wide -c "CALL partition_router.migrate('revenues', 'occurred_at', premake => 0)"
  hot wide
  for ((round = 0; round < BENCH_PARITY_ROUNDS; round++)); do
    progress "wide, round $((round + 1)) of $BENCH_PARITY_ROUNDS"
    measure_proof wide wide "$round" count detoast ours hash
  done
  drop_schema wide
}

# many SCHEMA ROWS: a pair of so many rows, in step.
many() {
  legacy "$1" 0
  sql "$1" -v rows="$2" -v copies="$(($2 / BENCH_ROWS + 1))" -v start="$FIRST" -v seconds=62000000 -f "$SQL/growth_rows.sql"
  in_step "$1" live
}

# damaged SCHEMA STATEMENT: runs it with the sync of the legacy switched off.
damaged() {
  sql "$1" >/dev/null <<SQL
SET partition_router.carry_ddl = off;
ALTER TABLE revenues DISABLE TRIGGER USER;
$2;
SELECT format('ALTER TABLE revenues ENABLE ALWAYS TRIGGER %I', tgname) FROM pg_trigger
WHERE tgrelid = 'revenues'::regclass AND NOT tgisinternal \\gexec
SQL
}

# Ten rows that differ, anywhere in many.
part_parity_few() {
  local round found
  many few "$BENCH_FEW_ROWS"
  hot few
  damaged few "UPDATE revenues SET amount_cents = -1 WHERE id IN (SELECT i * $BENCH_FEW_ROWS / 10 + 7 FROM generate_series(0, 9) i)"
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    progress "few differences, round $((round + 1)) of $BENCH_ROUNDS"
    keep parity few ours "$(timed few "$PASSES")"
    keep parity few mismatches "$(timed few "SELECT FROM partition_router.mismatches('revenues')")"
  done
  found=$(sql few -Atc "SELECT count(*) FROM partition_router.mismatches('revenues')")
  ((found == 10)) || die "mismatches named $found rows of ten"
  drop_schema few
}

# The memory of each call on a table of so many rows, and of five times as many; a twentieth of the rows differ.
part_parity_memory() {
  local size rows call
  for size in small large; do
    rows=$BENCH_MEMORY_ROWS
    [[ $size == small ]] || rows=$((5 * BENCH_MEMORY_ROWS))
    progress "memory, $(thousands "$rows") rows"
    many proof "$rows"
    damaged proof 'UPDATE revenues SET amount_cents = -1 WHERE id % 20 = 0'
    for call in verify mismatches repair; do
      watch_peak proof -c "SELECT count(*) FROM partition_router.$call('revenues')"
      keep parity memory "${call}_$size" "$PEAK_MEMORY"
    done
    drop_schema proof
  done
}
