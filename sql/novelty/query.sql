WITH numbered AS MATERIALIZED (
    SELECT *, row_number() OVER () AS kind, sum(endpoints) OVER () AS of_all FROM kinds
),
amounts AS (
    UNPIVOT (
        -- What all have, nothing of a trait, is no surprise, and need not be sorted.
        SELECT kind, endpoints, of_all, nullif(COLUMNS(* EXCLUDE (
            kind, endpoints, of_all, protocol, service_port
        )), 0)::UTINYINT
        FROM numbered
    ) ON COLUMNS(* EXCLUDE (kind, endpoints, of_all)) INTO NAME trait VALUE amount
),
equalled AS (
    SELECT
        kind,
        of_all,
        trait,
        amount,
        sum(endpoints) OVER (
            PARTITION BY trait ORDER BY amount DESC RANGE UNBOUNDED PRECEDING
        ) AS equals
    FROM amounts
    UNION ALL
    SELECT
        kind,
        of_all,
        'service_port',
        0,
        sum(endpoints) OVER (PARTITION BY protocol, service_port)
    FROM numbered
),
summed AS (
    SELECT
        kind,
        -- Whole numbers add up to the same in any order.
        sum(round(1e6 * ln(of_all / equals)))::BIGINT AS surprise,
        arg_min(trait, row(equals, -amount::INTEGER, trait)) FILTER (equals < of_all) AS novelty_in
    FROM equalled
    GROUP BY kind
)
SELECT
    n.* EXCLUDE (kind, of_all),
    coalesce(
        sum(n.endpoints) OVER (ORDER BY surprise RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
    ) / of_all AS novelty,
    if(novelty > 0, novelty_in, NULL) AS novelty_in
FROM numbered AS n
JOIN summed AS s USING (kind)
