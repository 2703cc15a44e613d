-- Who is answered was asked for. What single samples do not tell, many do: a crowd that is only
-- sampled counts if, within a minute, its host is hardly seen to answer.
WITH buckets AS (
    SELECT
        peer,
        kind,
        port,
        begun,
        count(*) FILTER (NOT must_be_many) AS sure,
        count(*) FILTER (must_be_many) AS sampled,
        count(*) FILTER (least_port < 1024) AS to_system_ports
    FROM unasked
    GROUP BY ALL
),
hosts_heard AS (
    SELECT peer, sum(sampled_from_peer) AS heard FROM replies GROUP BY peer
),
compared AS (
    SELECT
        buckets.*,
        sum(sampled) OVER around AS crowd,
        sum(coalesce(from_peer, 0) + if(kind = 'reflected', coalesce(endpoint_went_on, 0), 0))
            OVER around AS contradicted,
        coalesce(heard, 0) AS heard
    FROM buckets
    LEFT JOIN replies
        ON replies.peer = buckets.peer AND replies.begun = buckets.begun
        AND replies.protocol = if(kind = 'udp', 17, 6)
    LEFT JOIN hosts_heard ON hosts_heard.peer = buckets.peer
    WINDOW around AS (
        PARTITION BY buckets.peer, kind, port
        ORDER BY buckets.begun
        RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND INTERVAL 1 MINUTE FOLLOWING
    )
),
counted AS (
    SELECT
        *,
        sure + if(
            CASE kind
                -- Of a call that was meant, more follows than its answer.
                WHEN 'reflected' THEN crowd >= 10 * contradicted
                -- Who is sent a lot acknowledges one packet in ten, or in forty where they are
                -- put together; by chance none of a hundred such is sampled once in e^10 times.
                -- Of a host that samples never show, the answers take another way.
                ELSE heard - contradicted >= 20 AND crowd >= 100 + 40 * contradicted
            END,
            sampled,
            0
        ) AS together
    FROM compared
),
crowds AS (
    SELECT
        peer,
        kind,
        port,
        begun,
        together AS own,
        -- Who comes a little before or after the crowd belongs to it.
        max(together) OVER around AS crowd,
        max(to_system_ports) OVER around AS to_system_ports
    FROM counted
    WINDOW around AS (
        PARTITION BY peer, kind, port
        ORDER BY begun
        RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND INTERVAL 1 MINUTE FOLLOWING
    )
)
SELECT
    u.endpoint_ip,
    u.peer,
    u.kind,
    u.begun,
    u.port,
    u.packets,
    u.bytes,
    -- A neighbour's crowd is none of those who were answered.
    if(u.must_be_many AND c.own = 0, 0, c.crowd) AS crowd,
    c.to_system_ports
FROM unasked AS u
JOIN crowds AS c
    ON c.peer = u.peer AND c.kind = u.kind AND c.begun = u.begun
    AND c.port IS NOT DISTINCT FROM u.port
