-- A TCP side that sends data in three packets or more is answered: acknowledgements come
-- back. Where an exporter shows them, one side alone means that the other was silent; where it
-- does not, the answers took another way. Captures and their like (who knows packet sizes)
-- say themselves who was silent, and are no evidence about an exporter.
WITH judged AS (
    SELECT
        *,
        if(contains(endpoint_ip, ':'), 80, 60) AS header_bytes,
        sampling_rate = 1 AND protocol = 6 AND (
            coalesce(endpoint_packets >= 3 AND coalesce(
                endpoint_payload_bytes > 0, endpoint_bytes > header_bytes * endpoint_packets
            ), false)
            OR coalesce(peer_packets >= 3 AND coalesce(
                peer_payload_bytes > 0, peer_bytes > header_bytes * peer_packets
            ), false)
        ) AS needs_answer,
        coalesce(endpoint_min_bytes, peer_min_bytes) IS NOT NULL AS is_captured,
        sampling_rate > 1 AND protocol = 6 AND peer_ip IS NULL AS is_sample
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
            AS captured_both_ways,
        -- Of samples, single records show one side mostly; both sides of conversations that go
        -- on are sampled alike.
        count(*) FILTER (is_sample AND endpoint_tcp_flags & 22 = 16) AS endpoints_sampled,
        count(*) FILTER (is_sample AND peer_tcp_flags & 22 = 16) AS peers_sampled
    FROM judged
    GROUP BY sensor
)
SELECT
    *,
    exchanges >= 20 AND exchanges_both_ways >= 0.95 * exchanges AS tells_silence,
    2 * captured_both_ways < captured_exchanges AS misses_answers,
    -- Who downloads sends an acknowledgement for every two packets, some for ten.
    peers_sampled >= 20 AND peers_sampled >= 0.1 * endpoints_sampled AS samples_both_ways
FROM counted
