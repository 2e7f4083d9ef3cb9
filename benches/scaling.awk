# The arithmetic of docs/scaling.md from the lines of growth.tsv: what 1,000,000 organizations with 100,000,000 rows a month
# come to. Takes the largest number of rows that was measured, and the slope between fewest and most partitions.
# Variable: gain, how much faster two workers were than one (0: not measured).
{
    n = ++seen[$2, $3]
    value[$2, $3, n] = $4 + 0
    split($3, p, ":")
    size = p[1]
    gsub(",", "", size)
    if (!($2 in most) || size + 0 > most[$2]) { most[$2] = size + 0; largest[$2] = p[1] }
    if (!($2 in least) || size + 0 < least[$2]) { least[$2] = size + 0; smallest[$2] = p[1] }
}
function median(axis, what,    n, i, j, t, v) {
    n = seen[axis, what]
    for (i = 1; i <= n; i++) v[i] = value[axis, what, i]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n == 0 ? 0 : n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function at(what) { return median("rows", largest["rows"] ":" what) }
# What one more partition adds.
function slope(what,    low, high) {
    low = median("partitions", smallest["partitions"] ":" what)
    high = median("partitions", largest["partitions"] ":" what)
    return (high - low) / (most["partitions"] - least["partitions"])
}
function line(what, how, result) { printf "| %s | %s | %s |\n", what, how, result }
END {
    if (!("rows" in most) || !("partitions" in most) || most["partitions"] == least["partitions"]) exit
    month = 100000000
    months = 24
    rows = month * months
    a_second = month / 30 / 86400
    count = at("count")
    heap = at("heap") / count
    indexes = at("indexes") / count
    rate = count / (at("backfill") / 1000)
    hours = rows / rate / 3600
    GB = 1024 * 1024 * 1024
    print "| 100,000,000 rows a month | from | comes to |"
    print "| --- | --- | --- |"
    line("rows a second, average and at ten times that", "month / 30 days", sprintf("%.0f and %.0f", a_second, 10 * a_second))
    line("what sync adds to the writers at the peak, of one core", sprintf("%.0f µs a one-row INSERT", at("insert_live") - at("insert_none")),
        sprintf("%.1f %%", 10 * a_second * (at("insert_live") - at("insert_none")) / 10000))
    line("WAL a day for the inserts, without and with sync", sprintf("%.0f and %.0f bytes a row, without full-page images", at("wal_row_none"), at("wal_row_live")),
        sprintf("%.1f and %.1f GB", month / 30 * at("wal_row_none") / GB, month / 30 * at("wal_row_live") / GB))
    line("a month's partition, heap and indexes", sprintf("%.0f and %.0f bytes a row", heap, indexes),
        sprintf("%.1f and %.1f GB", month * heap / GB, month * indexes / GB))
    line("24 months, heap and indexes, of one side", "2,400,000,000 rows", sprintf("%.0f and %.0f GB", rows * heap / GB, rows * indexes / GB))
    line("disk while there is a pair", "both sides", sprintf("%.1f TB", 2 * rows * (heap + indexes) / GB / 1024))
    line("backfill of 24 months, 1 worker", sprintf("%d rows/s at %s rows", rate, largest["rows"]), sprintf("%.1f h", hours))
    if (gain > 0) line("backfill of 24 months, 2 workers", sprintf("%.2f × as fast", gain), sprintf("%.1f h", hours / gain))
    line("change log of that time, 10 changes to each new row", "48 bytes a key", sprintf("%.1f GB", 11 * a_second * hours * 3600 * 48 / GB))
    line("locks of the backfill, a partition more", sprintf("%d at %s, %d at %s", median("partitions", smallest["partitions"] ":locks"), smallest["partitions"],
        median("partitions", largest["partitions"] ":locks"), largest["partitions"]), sprintf("%.1f", slope("locks")))
    line("memory of the backfill, a partition more", sprintf("%.0f MB at %s, %.0f MB at %s", median("partitions", smallest["partitions"] ":memory") / 1024, smallest["partitions"],
        median("partitions", largest["partitions"] ":memory") / 1024, largest["partitions"]), sprintf("%.0f kB", slope("memory")))
    line("a balance a day for each of 1,000,000 organizations, in 16 hash partitions, a year of one", "365,000,000 rows / 16",
        sprintf("%.1f million rows, %.1f GB", 365 / 16, 365000000 / 16 * (heap + indexes) / GB))
}
