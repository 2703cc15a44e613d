SELECT
    peer,
    any_value(peer_is_domestic) AS peer_is_domestic,
    bool_or(answered > 0 OR opened_by_endpoint < connections OR half_seen > 0) AS is_active,
    count(DISTINCT endpoint_ip) AS endpoints,
    count(DISTINCT endpoint_ip)
        FILTER (service_kind IN ('other', 'rat') AND answered > 0 AND opened_by_endpoint = 0)
        AS unusual_endpoints,
    count(DISTINCT endpoint_ip) FILTER (failed > 0 AND answered = 0) AS failed_endpoints,
    min(first_seen) AS first_seen,
    max(last_seen) AS last_seen
FROM channels
GROUP BY peer
