-- Who is answered was asked for. What single samples do not tell, many do: a crowd of answers that
-- is only sampled counts if, within a minute, hardly anybody goes on to converse with its host.
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
contradicted AS (
    SELECT b.peer, b.kind, b.begun, sum(r.conversing) AS conversing
    FROM buckets AS b
    JOIN replies AS r
        ON r.peer = b.peer
        AND r.begun BETWEEN b.begun - INTERVAL 1 MINUTE AND b.begun + INTERVAL 1 MINUTE
    WHERE b.sampled > 0
    GROUP BY ALL
),
compared AS (
    SELECT
        b.*,
        -- Of a call that was meant, more follows than its answer.
        sum(b.sampled) OVER around >= 10 * coalesce(c.conversing, 0) AS samples_count
    FROM buckets AS b
    LEFT JOIN contradicted AS c ON c.peer = b.peer AND c.kind = b.kind AND c.begun = b.begun
    WINDOW around AS (
        PARTITION BY b.peer, b.kind, b.port
        ORDER BY b.begun
        RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND INTERVAL 1 MINUTE FOLLOWING
    )
),
crowds AS (
    SELECT
        peer,
        kind,
        port,
        begun,
        samples_count,
        -- Who comes a little before or after the crowd belongs to it.
        max(sure + if(samples_count, sampled, 0)) OVER around AS crowd,
        max(to_system_ports) OVER around AS to_system_ports
    FROM compared
    WINDOW around AS (
        PARTITION BY peer, kind, port
        ORDER BY begun
        RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND INTERVAL 1 MINUTE FOLLOWING
    )
),
-- A flood that is spread over a network brings few to each of its hosts. Who sent a few packets only
-- may have had a reason for it, or looked around.
networks AS (
    SELECT
        peer_net,
        kind,
        begun,
        max(count(DISTINCT endpoint_ip)) OVER (
            PARTITION BY peer_net, kind
            ORDER BY begun
            RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND INTERVAL 1 MINUTE FOLLOWING
        ) AS crowd
    FROM unasked
    WHERE kind IN ('udp', 'tcp') AND packets >= 10 AND peer_net IS NOT NULL
    GROUP BY peer_net, kind, begun
)
SELECT
    u.endpoint_ip,
    u.peer,
    u.kind,
    u.begun,
    u.port,
    u.packets,
    u.bytes,
    if(u.must_be_many AND NOT c.samples_count, 0, c.crowd) AS crowd,
    c.to_system_ports,
    if(u.packets >= 10, coalesce(n.crowd, 0), 0) AS net_crowd
FROM unasked AS u
JOIN crowds AS c
    ON c.peer = u.peer AND c.kind = u.kind AND c.begun = u.begun
    AND c.port IS NOT DISTINCT FROM u.port
LEFT JOIN networks AS n
    ON n.peer_net = u.peer_net AND n.kind = u.kind AND n.begun = u.begun
