# shellcheck shell=bash
# Parts "bulk" and "change": many rows in one statement, each measurement on new tables. Kept in milliseconds.

# 500,000 rows by INSERT … SELECT and by COPY. No statement can COPY into two tables: COPY has no CTE to compare with.
part_bulk() {
  local round way work variant variants suffix file=$PLACE/data/source.copy
  sql public -c "COPY bench.source TO '$file'"
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    progress "round $((round + 1)) of $BENCH_ROUNDS"
    for way in forward reverse; do
      direction "$way"
      for work in insert_bulk copy_bulk; do
        variants='none live row'
        [[ $work == copy_bulk ]] || variants='none live cte statement row'
        [[ $work$way != insert_bulkforward ]] || variants+=' capture'
        # shellcheck disable=SC2086 # words
        for variant in $(rotated "$round" $variants); do
          suffix=
          [[ $variant != cte ]] || suffix=_cte
          legacy bulk 0
          in_step bulk "$variant"
          sql bulk -c CHECKPOINT
          keep "$way" "$work" "$variant" "$(timed bulk "$(filled "$work$suffix" | sed "s|@file@|$file|")")"
          equal bulk "$variant"
        done
      done
    done
  done
  drop_schema bulk
}

# 100,000 rows by UPDATE and by DELETE, of a fifth more that are there.
part_change() {
  local round way variant work suffix
  for ((round = 0; round < BENCH_ROUNDS; round++)); do
    progress "round $((round + 1)) of $BENCH_ROUNDS"
    for way in forward reverse; do
      direction "$way"
      for variant in $(rotated "$round" none live cte statement row); do
        suffix=
        [[ $variant != cte ]] || suffix=_cte
        legacy change "$((BENCH_CHANGES * 6 / 5))"
        in_step change "$variant"
        for work in update_bulk delete_bulk; do
          sql change -c CHECKPOINT
          keep "$way" "$work" "$variant" \
            "$(timed change "$(filled "$work$suffix" | sed "s/@changes@/$BENCH_CHANGES/")")"
        done
        equal change "$variant"
      done
    done
  done
  drop_schema change
}
