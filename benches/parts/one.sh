# shellcheck shell=bash
# Part "one": one-row INSERT, UPDATE and DELETE. The tables of all variants lie side by side, and short slices of
# each follow one another, so that what disturbs the machine disturbs all alike. Kept in microseconds.

part_one() {
  local way variant work round schema
  local -a variants
  for way in forward reverse; do
    direction "$way"
    for variant in $(one_variants "$way"); do
      schema=one_${way}_$variant
      drop_schema "$schema"
      sql "$schema" -c "CREATE SCHEMA $schema" -f "$SQL/schema.sql" -v rows="$BENCH_ONE_ROWS" -f "$SQL/one_rows.sql"
      in_step "$schema" "$variant"
    done
  done
  sql public -c CHECKPOINT
  pin
  for ((round = 0; round < BENCH_ONE_ROUNDS; round++)); do
    for way in forward reverse; do
      direction "$way"
      read -ra variants <<<"$(one_variants "$way")"
      for work in insert_one update_one delete_one; do
        for variant in $(rotated "$round" "${variants[@]}"); do
          keep "$way" "$work" "$variant" "$(one_slice "$way" "$variant" "$work" "$round")"
        done
      done
    done
  done
  unpin
  for way in forward reverse; do
    for variant in $(one_variants "$way"); do
      equal "one_${way}_$variant" "$variant"
      drop_schema "one_${way}_$variant"
    done
  done
}

# The twin takes no writes during the copy, so that there is no capture in reverse.
one_variants() {
  if [[ $1 == forward ]]; then echo none nothing live capture cte statement row floor; else echo none nothing live cte statement row floor; fi
}

# one_slice WAY VARIANT WORK ROUND: deletes go through the first ids one by one, updates hit ids that no delete reaches.
one_slice() {
  local suffix='' and='' step=$((60000000 / BENCH_ONE_ROWS)) deleted=$((BENCH_ONE * BENCH_ONE_ROUNDS + 24))
  [[ $2 != cte ]] || suffix=_cte
  [[ $1 == forward ]] || and="AND occurred_at = :first::timestamp + :sec * interval '1 second'"
  filled "$3$suffix" | sed "s/@and@/$and/" >"$BENCH/one.sql"
  slice "one_$1_$2" "$BENCH/one.sql" "$BENCH_ONE" -D step="$step" -D rows="$BENCH_ONE_ROWS" -D least="$((deleted + 1))" \
    -D id="$((24 + BENCH_ONE * $4))"
}
