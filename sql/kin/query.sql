-- Channels of one host that are made alike: the same port, requests of the same size, sent
-- again and again, one of them in a rhythm. Software with a list of servers talks to all of
-- them in the same words.
WITH steady AS (
    SELECT
        endpoint_ip,
        peer,
        protocol,
        service_port,
        peer_bytes_median,
        service_kind,
        greatest(start_regularity, beat_regularity) AS regularity,
        if(start_regularity >= beat_regularity, start_median_s, beat_median_s) AS median_s
    FROM channels
    WHERE peer_is_domestic
        AND opened_by_endpoint = 0
        AND answered >= 3
        AND service_kind NOT IN ('clock', 'name')
        -- The sizes of one request differ by what is filled in, such as a number or a name.
        AND peer_bytes_dispersion <= 0.1
),
likes AS (
    SELECT
        c.endpoint_ip,
        c.peer,
        c.service_port,
        c.service_kind,
        c.peer_bytes_median,
        a.regularity,
        a.median_s
    FROM steady AS c
    JOIN steady AS a
        ON a.peer = c.peer AND a.protocol = c.protocol AND a.service_port = c.service_port
        AND a.endpoint_ip <> c.endpoint_ip
        AND a.peer_bytes_median BETWEEN 0.9 * c.peer_bytes_median AND 1.1 * c.peer_bytes_median
    WHERE a.regularity >= 0.5
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
