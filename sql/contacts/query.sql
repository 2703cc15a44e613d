-- One row for each record and each foreign end of it: a record between two
-- foreign addresses appears twice, the second time with the sides exchanged.
WITH ends AS (
    SELECT
        endpoint_ip,
        coalesce(peer_pid, peer_ip) AS peer,
        peer_net_pid AS peer_net,
        peer_ip IS NULL AS peer_is_domestic,
        sensor,
        tunnel,
        protocol,
        endpoint_port,
        peer_port,
        service_port,
        direction,
        originator = 'endpoint' AS from_endpoint,
        conn_state,
        first_seen,
        last_seen,
        duration_s,
        endpoint_sent,
        peer_sent,
        endpoint_packets,
        endpoint_bytes,
        endpoint_payload_bytes,
        endpoint_max_bytes,
        endpoint_tcp_flags,
        endpoint_first,
        endpoint_last,
        endpoint_burst_starts,
        endpoint_burst_ends,
        peer_packets,
        peer_bytes,
        peer_payload_bytes,
        peer_tcp_flags,
        peer_first,
        peer_last,
        peer_burst_starts,
        peer_burst_ends,
        sampling_rate
    FROM records
    UNION ALL
    SELECT
        peer_ip,
        endpoint_ip,
        NULL,
        false,
        sensor,
        tunnel,
        protocol,
        peer_port,
        endpoint_port,
        service_port,
        direction,
        originator = 'peer',
        conn_state,
        first_seen,
        last_seen,
        duration_s,
        peer_sent,
        endpoint_sent,
        peer_packets,
        peer_bytes,
        peer_payload_bytes,
        peer_max_bytes,
        peer_tcp_flags,
        peer_first,
        peer_last,
        peer_burst_starts,
        peer_burst_ends,
        endpoint_packets,
        endpoint_bytes,
        endpoint_payload_bytes,
        endpoint_tcp_flags,
        endpoint_first,
        endpoint_last,
        endpoint_burst_starts,
        endpoint_burst_ends,
        sampling_rate
    FROM records
    WHERE peer_ip IS NOT NULL
),
followed AS (
    SELECT
        *,
        -- A record goes on with an earlier one when less than the idle time of five
        -- minutes lies between them (the cut at half hours), or when a TCP
        -- conversation on the same ports goes on without a new SYN.
        coalesce(
            epoch_us(first_seen - lag(last_seen) OVER ports) < 300000000
            OR (
                protocol = 6
                AND lag(last_seen) OVER ports IS NOT NULL
                AND (endpoint_tcp_flags | peer_tcp_flags) & 2 = 0
            ),
            false
        ) AS goes_on
    FROM ends
    WINDOW ports AS (
        PARTITION BY endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel
        ORDER BY first_seen, last_seen, peer_is_domestic
    )
),
numbered AS (
    SELECT
        *,
        count(*) FILTER (NOT goes_on) OVER (
            PARTITION BY endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel
            ORDER BY first_seen, last_seen, peer_is_domestic
            ROWS UNBOUNDED PRECEDING
        ) AS connection
    FROM followed
)
SELECT
    * EXCLUDE (from_endpoint, goes_on, connection),
    first_value(from_endpoint) OVER parts AS from_endpoint,
    NOT goes_on AS opens,
    first_value(first_seen) OVER parts AS opened_at
FROM numbered
WINDOW parts AS (
    PARTITION BY
        endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel, connection
    ORDER BY first_seen, last_seen, peer_is_domestic
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
)
