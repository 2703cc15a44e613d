WITH ranked AS (
    SELECT
        *,
        greatest(start_regularity, beat_regularity, start_in_regularity) AS regularity,
        row_number() OVER (
            PARTITION BY endpoint_ip, peer
            ORDER BY
                greatest(start_regularity, beat_regularity, start_in_regularity) DESC,
                connections DESC, protocol, service_port
        ) AS place
    FROM channels
)
SELECT
    endpoint_ip,
    peer,
    any_value(peer_is_domestic) AS peer_is_domestic,
    min(first_seen) AS first_seen,
    max(last_seen) AS last_seen,
    sum(connections)::BIGINT AS connections,
    sum(opened_by_endpoint)::BIGINT AS opened_by_endpoint,
    sum(answered)::BIGINT AS answered,
    sum(failed)::BIGINT AS failed,
    sum(half_seen)::BIGINT AS half_seen,
    max(longest_s) AS longest_s,
    sum(endpoint_bytes)::BIGINT AS endpoint_bytes,
    sum(peer_bytes)::BIGINT AS peer_bytes,
    sum(endpoint_packets)::BIGINT AS endpoint_packets,
    sum(peer_packets)::BIGINT AS peer_packets,
    max(hours_active) AS hours_active,
    count(DISTINCT (protocol, service_port)) AS services,
    max(protocol) FILTER (place = 1) AS main_protocol,
    max(service_port) FILTER (place = 1) AS main_port,
    max(service_kind) FILTER (place = 1) AS main_kind,
    max(regularity) AS regularity,
    max(start_gaps) FILTER (place = 1) AS start_gaps,
    max(start_median_s) FILTER (place = 1) AS start_median_s,
    max(start_mad_s) FILTER (place = 1) AS start_mad_s,
    max(start_skew) FILTER (place = 1) AS start_skew,
    max(start_near_share) FILTER (place = 1) AS start_near_share,
    max(beat_gaps) FILTER (place = 1) AS beat_gaps,
    max(beat_median_s) FILTER (place = 1) AS beat_median_s,
    max(beat_mad_s) FILTER (place = 1) AS beat_mad_s,
    max(beat_skew) FILTER (place = 1) AS beat_skew,
    max(beat_near_share) FILTER (place = 1) AS beat_near_share,
    max(peer_bytes_median) FILTER (place = 1) AS peer_bytes_median,
    max(peer_bytes_dispersion) FILTER (place = 1) AS peer_bytes_dispersion,
    max(endpoint_bytes_median) FILTER (place = 1) AS endpoint_bytes_median,
    max(endpoint_bytes_dispersion) FILTER (place = 1) AS endpoint_bytes_dispersion
FROM ranked
GROUP BY endpoint_ip, peer
