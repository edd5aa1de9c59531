-- What each model cost, by deployment, type of deployment and tier.
SELECT model, deployment, sku, service_tier,
       count(*)                                                  AS records,
       sum(prompt_tokens)::BIGINT                                AS prompt_tokens,
       sum(completion_tokens)::BIGINT                            AS completion_tokens,
       sum(cost_nano_usd)::BIGINT                                AS cost_nano_usd
FROM read_parquet('usage.parquet')
WHERE kind IN ('request', 'update', 'write_off')
GROUP BY ALL
ORDER BY cost_nano_usd DESC NULLS LAST, model, deployment, sku, service_tier;
