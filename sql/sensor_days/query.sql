-- Days are counted, not the time since the first record: one broken clock would make every
-- endpoint look new.
SELECT
    sensor,
    day,
    count(*) OVER (
        PARTITION BY sensor ORDER BY day RANGE BETWEEN 30 PRECEDING AND 1 PRECEDING
    ) AS days_before
FROM (SELECT DISTINCT sensor, epoch_us(first_seen) // 86400000000 AS day FROM records)
