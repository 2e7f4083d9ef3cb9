#!/usr/bin/env bash
# Side by side, in one run: what the dual write, the backfill and the proof cost, against what one would do
# instead. Prints medians, with the least and the most, and ratios; and at the end each requirement with its limit and
# what was reached. It never passes or fails on time: machines differ, and the ratios are what to compare.
# Wants a release build installed (make bench does that first).
#
#   run.sh           measure, and report
#   run.sh report    only print what earlier runs left
#   run.sh publish   put that into docs/benchmarks.md and docs/scaling.md
#
# Each part leaves its results in BENCH_DIR/PART.tsv, and the report takes all that are there: a part can be
# measured again alone.
#
#   BENCH_PARTS        which parts to run (default all but "growth", "switchover", "reader", "unique",
#                      "bystanders" and "feed"; see
#                      MEASURES below)
#   BENCH_DIR          where the server and the results lie (default target/bench)
#   BENCH_QUICK        when set, small sizes: some minutes
#   BENCH_ROUNDS       interleaved rounds of all but one-row statements (default 3)
#   BENCH_ONE_ROUNDS   interleaved rounds of one-row statements (default 15)
#   BENCH_ONE          one-row statements a slice (default 3,000)
#   BENCH_ONE_ROWS     rows of each table that they meet (default 100,000)
#   BENCH_ROWS         rows of one bulk INSERT or COPY (default 500,000)
#   BENCH_CHANGES      rows of one bulk UPDATE or DELETE (default 100,000)
#   BENCH_COPY_ROWS    rows of the backfill, of the proof, and of the backfill under load (default 3,000,000)
#   BENCH_PARITY_ROUNDS interleaved rounds of the proof (default 5)
#   BENCH_WIDE_ROWS    rows of the proof with large values (default 500,000)
#   BENCH_FEW_ROWS     rows among which ten differ (default 10,000,000)
#   BENCH_PARTMAN_ROWS rows that pg_partman moves (default 1,000,000)
#   BENCH_LOAD         writers beside the backfill, in percent of what they reach alone (default 50)
#   BENCH_LOAD_SECONDS seconds of the same without a backfill (default 15)
#   BENCH_MEMORY_ROWS  rows of the smaller statement whose memory is watched; the larger has five times as many
#                      (default 1,000,000)
#   BENCH_ROUTE_ROUNDS interleaved rounds of what is routed (default 15)
#   BENCH_ROUTE_ONE    one-row reads a slice (default 10,000)
#   BENCH_ROUTE_SCALE  of pgbench -i for the table that has no pair (default 5)
#   BENCH_CALLS        calls of route() a round (default 300,000)
#   BENCH_PAIRS        pairs beside the one that is read (default 1,000)
#   BENCH_TABLES       tables that maintenance goes through, and pairs that are looked at (default 1,000)
#   BENCH_ALONE        a command to run what is timed by, such as one that stops what else runs (default none)
#   BENCH_GROWTH       millions of rows to grow to (default "1 3 10 30")
#   BENCH_SWITCHOVER   millions of rows at which names swap (default "1 3 10")
#   BENCH_TRIPS        switchovers, and rollbacks, at each size (default 10)
#   BENCH_FEED_SECONDS seconds of a slice in which many commit at once (default 10)
#   BENCH_READER       seconds that a reader is in the way of a switchover, or readers of maintenance (default 60)
#   BENCH_PARTITIONS   numbers of partitions (default "24 240 1000"), with BENCH_COPY_ROWS rows
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$HERE/../scripts/lib.sh"
# shellcheck source=benches/lib.sh
source "$HERE/lib.sh"
for file in one bulk copy load memory parity route maintenance observe growth switchover unique bystanders feed; do
  # shellcheck disable=SC1090 # each is checked by itself
  source "$HERE/parts/$file.sh"
done

if [[ -n ${BENCH_QUICK:-} ]]; then
  : "${BENCH_ROUNDS:=1}" "${BENCH_ONE_ROUNDS:=3}" "${BENCH_ONE:=1000}" "${BENCH_ONE_ROWS:=20000}" "${BENCH_ROWS:=20000}" \
    "${BENCH_CHANGES:=5000}" "${BENCH_COPY_ROWS:=200000}" "${BENCH_PARTMAN_ROWS:=20000}" "${BENCH_MEMORY_ROWS:=50000}" \
    "${BENCH_LOAD_SECONDS:=5}" "${BENCH_PARITY_ROUNDS:=1}" "${BENCH_WIDE_ROWS:=20000}" "${BENCH_FEW_ROWS:=200000}" \
    "${BENCH_ROUTE_ROUNDS:=3}" "${BENCH_ROUTE_ONE:=1000}" "${BENCH_CALLS:=20000}" "${BENCH_PAIRS:=20}" "${BENCH_TABLES:=20}" \
    "${BENCH_GROWTH:=0.1 0.3}" "${BENCH_PARTITIONS:=24 100}" "${BENCH_SWITCHOVER:=0.1}" "${BENCH_TRIPS:=3}" "${BENCH_READER:=5}" \
    "${BENCH_FEED_SECONDS:=2}"
fi
: "${BENCH_LOAD:=50}" "${BENCH_LOAD_SECONDS:=15}" "${BENCH_ROUNDS:=3}" "${BENCH_ONE_ROUNDS:=15}" "${BENCH_ONE:=3000}" "${BENCH_ONE_ROWS:=100000}" "${BENCH_ROWS:=500000}" \
  "${BENCH_CHANGES:=100000}" "${BENCH_COPY_ROWS:=3000000}" "${BENCH_PARTMAN_ROWS:=1000000}" "${BENCH_MEMORY_ROWS:=1000000}" \
  "${BENCH_PARITY_ROUNDS:=5}" "${BENCH_WIDE_ROWS:=500000}" "${BENCH_FEW_ROWS:=10000000}" \
  "${BENCH_GROWTH:=1 3 10 30}" "${BENCH_PARTITIONS:=24 240 1000}" "${BENCH_SWITCHOVER:=1 3 10}" "${BENCH_TRIPS:=10}" "${BENCH_READER:=60}" "${BENCH_FEED_SECONDS:=10}"
: "${BENCH_ROUTE_ROUNDS:=15}" "${BENCH_ROUTE_ONE:=10000}" "${BENCH_ROUTE_SCALE:=5}" "${BENCH_CALLS:=300000}" "${BENCH_PAIRS:=1000}" "${BENCH_TABLES:=1000}"
MEASURES='one bulk change copy load memory parity_plain parity_wide parity_few parity_memory route pairs maintenance observe'
: "${BENCH_PARTS:=$MEASURES}"
: "${BENCH_DIR:=$ROOT/target/bench}"
BENCH=$(realpath -m -- "$BENCH_DIR")

progress() { note "$PART: $* ($(elapsed "$BEGAN") s)"; }

report() {
  echo
  ran
  echo
  if [[ -s $BENCH/growth.tsv ]]; then
    growth_table rows
    echo
    growth_table partitions
    echo
    arithmetic
    echo
  fi
  if [[ -s $BENCH/switchover.tsv ]]; then
    switchover_table
    echo
  fi
  if [[ -s $BENCH/reader.tsv ]]; then
    reader_table
    echo
  fi
  if [[ -s $BENCH/unique.tsv ]]; then
    unique_table
    echo
  fi
  if [[ -s $BENCH/bystanders.tsv ]]; then
    bystanders_table
    echo
  fi
  if [[ -s $BENCH/feed.tsv ]]; then
    feed_table
    echo
    feed_together_table
    echo
  fi
  local part
  for part in $MEASURES; do
    [[ ! -s $BENCH/$part.tsv ]] || cat "$BENCH/$part.tsv"
  done | LC_ALL=C awk -F '\t' -v copied="$BENCH_COPY_ROWS" -f "$HERE/report.awk"
}

# Of each part that left results: when and where.
ran() {
  local part
  for part in $MEASURES growth switchover reader unique bystanders feed; do
    [[ ! -s $BENCH/$part.run ]] || note "$part: $(<"$BENCH/$part.run")"
  done
}

growth_table() { awk -F '\t' -v only="$1" -f "$HERE/growth.awk" "$BENCH/growth.tsv"; }

arithmetic() { awk -F '\t' -v gain="$(gain_of_workers)" -f "$HERE/scaling.awk" "$BENCH/growth.tsv"; }

# publish: puts the figures into the documents, between <!-- what --> and <!-- end -->.
publish() {
  [[ ! -s $BENCH/switchover.tsv ]] || switchover_table | put benchmarks.md switchover
  [[ ! -s $BENCH/reader.tsv ]] || reader_table | put benchmarks.md reader
  [[ ! -s $BENCH/unique.tsv ]] || unique_table | put benchmarks.md unique
  [[ ! -s $BENCH/bystanders.tsv ]] || bystanders_table | put benchmarks.md bystanders
  [[ ! -s $BENCH/feed.tsv ]] || {
    feed_table | put benchmarks.md feed
    feed_together_table | put benchmarks.md 'feed: together'
  }
  if [[ -s $BENCH/growth.tsv ]]; then
    growth_table rows | put scaling.md 'growth: rows'
    growth_table partitions | put scaling.md 'growth: partitions'
    arithmetic | put scaling.md 'growth: arithmetic'
  fi
  { echo '```' && report && echo '```'; } | put benchmarks.md report
}

# put PAGE WHAT: what it reads, in place of what the page has there.
put() {
  cat >"$BENCH/put"
  grep -qxF "<!-- $2 -->" "$ROOT/docs/$1" || die "docs/$1 has no place for '$2'"
  awk -v what="<!-- $2 -->" -v file="$BENCH/put" '
    $0 == "<!-- end -->" { inside = 0 }
    !inside
    $0 == what { inside = 1; while ((getline line < file) > 0) print line }' "$ROOT/docs/$1" >"$BENCH/page"
  cat "$BENCH/page" >"$ROOT/docs/$1"
}

# How much faster two workers were than one, by the sums of all rounds; 0 when it was not measured.
gain_of_workers() {
  [[ -s $BENCH/copy.tsv ]] || { echo 0 && return; }
  awk -F '\t' '$2 == "workers" { sum[$3] += $4 } END { print (sum["two"] > 0 ? sum["one"] / sum["two"] : 0) }' "$BENCH/copy.tsv"
}

main() {
  require_postgres
  mkdir -p "$BENCH"
  if (($# == 0)); then
    BEGAN=$(now)
    start_cluster
    for PART in $BENCH_PARTS; do
      measure
    done
  fi
  case ${1:-report} in
    report) report ;;
    publish) publish ;;
    *) die "usage: run.sh [report|publish]" ;;
  esac
}

# One part, with a note of when and where.
measure() {
  local began
  declare -F "part_$PART" >/dev/null || die "there is no part $PART"
  say "$PART ($(elapsed "$BEGAN") s)"
  began=$(now)
  : >"$BENCH/$PART.tsv"
  "part_$PART"
  echo "PostgreSQL $("$PG_BIN/postgres" --version | awk '{ print $3 }'), $(nproc) cores, load $(cut -d ' ' -f 1-3 /proc/loadavg)," \
    "$(date -u +%F), $(elapsed "$began") s" >"$BENCH/$PART.run"
}

main "$@"
