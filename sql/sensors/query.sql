-- A TCP side that sends data in three packets or more is answered: acknowledgements come
-- back. Where an exporter shows them, one side alone means that the other was silent; where it
-- does not, the answers took another way. Captures and their like (who knows packet sizes)
-- say themselves who was silent, and are no evidence about an exporter.
WITH judged AS (
    SELECT
        *,
        sampling_rate = 1 AND protocol = 6 AND (
            coalesce(endpoint_packets >= 3 AND endpoint_sent_data, false)
            OR coalesce(peer_packets >= 3 AND peer_sent_data, false)
        ) AS needs_answer,
        coalesce(endpoint_min_bytes, peer_min_bytes) IS NOT NULL AS is_captured
    FROM records
),
counted AS (
    SELECT
        sensor,
        count(*) AS records,
        count(*) FILTER (is_one_sided) AS one_sided,
        count(*) FILTER (sampling_rate > 1) AS sampled,
        min(sampling_rate) AS least_sampling_rate,
        max(sampling_rate) AS greatest_sampling_rate,
        max(active_timeout_s) AS active_timeout_s,
        max(idle_timeout_s) AS idle_timeout_s,
        bool_or(endpoint_sent AND peer_sent) AS both_ways,
        count(*) FILTER (needs_answer AND NOT is_captured) AS exchanges,
        count(*) FILTER (needs_answer AND NOT is_captured AND endpoint_sent AND peer_sent)
            AS exchanges_both_ways,
        count(*) FILTER (needs_answer AND is_captured) AS captured_exchanges,
        count(*) FILTER (needs_answer AND is_captured AND endpoint_sent AND peer_sent)
            AS captured_both_ways
    FROM judged
    GROUP BY sensor
)
SELECT
    *,
    exchanges >= 20 AND exchanges_both_ways >= 0.95 * exchanges AS tells_silence,
    -- Forged conversations should have to be twenty times as many as those that are none.
    captured_both_ways < 0.05 * captured_exchanges AS misses_answers
FROM counted
