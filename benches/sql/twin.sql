-- The twin of revenues as one would write it by hand: 24 months and a default.
CREATE TABLE revenues_partitioned (LIKE revenues INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (occurred_at);
DO $$
BEGIN
    FOR m IN 0..23 LOOP
        EXECUTE format('CREATE TABLE revenues_%s PARTITION OF revenues_partitioned FOR VALUES FROM (%L) TO (%L)', m,
            bench.first_month() + m * interval '1 month', bench.first_month() + (m + 1) * interval '1 month');
    END LOOP;
END $$;
CREATE TABLE revenues_default PARTITION OF revenues_partitioned DEFAULT;
