WITH counted AS (
    SELECT
        *,
        count(*) OVER same AS together,
        count(*) FILTER (least_port < 1024) OVER same AS to_system_ports
    FROM unasked
    WINDOW same AS (PARTITION BY peer, kind, port, begun)
)
SELECT
    endpoint_ip,
    peer,
    kind,
    begun,
    port,
    packets,
    bytes,
    -- Who comes a little before or after the crowd belongs to it.
    max(together) OVER around AS crowd,
    max(to_system_ports) OVER around AS to_system_ports
FROM counted
WINDOW around AS (
    PARTITION BY peer, kind, port
    ORDER BY begun
    RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND INTERVAL 1 MINUTE FOLLOWING
)
