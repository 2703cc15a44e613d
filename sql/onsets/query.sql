-- Who is answered was asked for: a crowd that is only sampled counts if its host says nothing to
-- nine of ten of it, and if it does not go on with what looked like answers.
WITH judged AS (
    SELECT
        unasked.*,
        is_sampled AND kind IN ('reflected', 'tcp', 'udp') AS must_be_many,
        coalesce(from_peer, 0) + if(kind = 'reflected', coalesce(went_on, 0), 0) AS contradicted
    FROM unasked
    LEFT JOIN replies
        ON replies.peer = unasked.peer AND replies.begun = unasked.begun
        AND replies.protocol = if(kind = 'udp', 17, 6)
),
counted AS (
    SELECT
        *,
        count(*) FILTER (NOT must_be_many) OVER same
            + if(
                10 * contradicted <= count(*) FILTER (must_be_many) OVER same,
                count(*) FILTER (must_be_many) OVER same,
                0
            ) AS together,
        count(*) FILTER (least_port < 1024) OVER same AS to_system_ports
    FROM judged
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
