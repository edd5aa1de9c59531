-- What each day (UTC, by the time of admission) cost, and how many tokens it had.
SET TimeZone = 'UTC';
SELECT strftime(time, '%Y-%m-%d')                               AS day,
       count(*)                                                  AS records,
       sum(cost_nano_usd)::BIGINT                                AS cost_nano_usd,
       sum(prompt_tokens)::BIGINT                                AS prompt_tokens,
       sum(completion_tokens)::BIGINT                            AS completion_tokens
FROM read_parquet('usage.parquet')
WHERE kind IN ('request', 'update', 'write_off')
GROUP BY day
ORDER BY day;
