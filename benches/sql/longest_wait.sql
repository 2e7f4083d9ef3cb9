-- For :seconds, asks every 5 ms who waits for a lock on a table, and since when: gives the longest wait, in milliseconds.
CREATE FUNCTION pg_temp.longest_wait(seconds int) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + make_interval(secs => seconds);
    waited double precision;
    longest double precision := 0;
BEGIN
    WHILE clock_timestamp() < until LOOP
        SELECT max(extract(epoch FROM clock_timestamp() - waitstart)) * 1000 INTO waited
        FROM pg_locks WHERE NOT granted AND locktype = 'relation';
        longest := greatest(longest, waited);
        PERFORM pg_sleep(0.005);
    END LOOP;
    RETURN longest;
END
$$;
SELECT pg_temp.longest_wait(:seconds);
