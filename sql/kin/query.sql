-- Channels of one host that are made alike: the same port, requests of the same size, sent
-- again and again, one of them in a rhythm. Software with a list of servers talks to all of
-- them in the same words.
WITH likes AS (
    SELECT
        c.endpoint_ip,
        c.peer,
        c.service_port,
        c.service_kind,
        c.peer_bytes_median,
        a.regularity,
        a.median_s
    FROM called AS c
    JOIN called AS a
        ON a.peer = c.peer AND a.protocol = c.protocol AND a.service_port = c.service_port
        AND a.endpoint_ip <> c.endpoint_ip
        AND a.peer_bytes_median BETWEEN 0.9 * c.peer_bytes_median AND 1.1 * c.peer_bytes_median
    WHERE c.is_steady AND a.is_steady AND a.regularity >= 0.5
),
counted AS (
    SELECT
        endpoint_ip,
        peer,
        service_port,
        any_value(service_kind) AS service_kind,
        any_value(peer_bytes_median) AS request_bytes,
        count(*) AS endpoints,
        max(regularity) AS regularity,
        min(median_s) AS median_s
    FROM likes
    GROUP BY endpoint_ip, peer, service_port
)
SELECT
    endpoint_ip, peer, service_port, service_kind, request_bytes, endpoints, regularity, median_s
FROM counted
QUALIFY row_number() OVER (
    PARTITION BY endpoint_ip ORDER BY regularity DESC, endpoints DESC, service_port, request_bytes, peer
) = 1
