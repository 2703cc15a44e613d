WITH met AS (
    SELECT
        peer,
        endpoint_ip,
        any_value(peer_is_domestic) AS peer_is_domestic,
        bool_or(answered > 0 OR opened_by_endpoint < connections OR half_seen > 0) AS is_active,
        bool_or(service_kind IN ('other', 'rat') AND answered > 0 AND opened_by_endpoint = 0)
            AS is_unusual,
        sum(least(endpoint_packets, peer_packets))
            FILTER (
                protocol = 17 AND service_port = 53 AND opened_by_endpoint < connections
                AND endpoint_packets > 0 AND peer_packets > 0
            )
            AS name_exchanges,
        bool_or(failed > 0 AND answered = 0) AS is_failed,
        sum((start_gaps IS NOT NULL)::INT + (beat_gaps IS NOT NULL)::INT + (start_in_gaps IS NOT NULL)::INT)
            FILTER (answered > 0 AND peer_is_domestic) AS series,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen
    FROM channels
    GROUP BY peer, endpoint_ip
)
SELECT
    peer,
    any_value(peer_is_domestic) AS peer_is_domestic,
    bool_or(is_active) AS is_active,
    count(*) AS endpoints,
    count(*) FILTER (is_unusual) AS unusual_endpoints,
    count(*) FILTER (is_failed) AS failed_endpoints,
    coalesce(sum(name_exchanges), 0)::BIGINT AS name_exchanges,
    coalesce(sum(series), 0)::BIGINT AS series,
    min(first_seen) AS first_seen,
    max(last_seen) AS last_seen
FROM met
GROUP BY peer
