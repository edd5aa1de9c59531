-- Amounts are nano-USD in bigint. A sum of bigint is a bigint and fails loudly
-- above 9.2 billion dollars; a dollar figure is a decimal, never a float.

-- Spend by product and budget period.
SELECT product_id, MAX(product) AS product, period, COUNT_BIG(*) AS records, SUM(cost_nano_usd) AS cost_nano_usd,
       CAST(SUM(cost_nano_usd) AS decimal(28, 9)) * CAST(0.000000001 AS decimal(10, 9)) AS cost_usd
FROM dbo.Spending GROUP BY product_id, period ORDER BY cost_nano_usd DESC;

-- Spend by day (UTC).
SELECT day, COUNT_BIG(*) AS records, SUM(cost_nano_usd) AS cost_nano_usd, SUM(prompt_tokens) AS prompt_tokens, SUM(completion_tokens) AS completion_tokens
FROM dbo.Spending GROUP BY day ORDER BY day;

-- Spend by model.
SELECT model, deployment, sku, service_tier, COUNT_BIG(*) AS records, SUM(prompt_tokens) AS prompt_tokens, SUM(completion_tokens) AS completion_tokens,
       SUM(cost_nano_usd) AS cost_nano_usd
FROM dbo.Spending GROUP BY model, deployment, sku, service_tier ORDER BY cost_nano_usd DESC;

-- How much of the prompts came out of the cache, in parts per million.
SELECT model, COUNT_BIG(*) AS records, SUM(prompt_tokens) AS prompt_tokens, SUM(cached_tokens) AS cached_tokens,
       SUM(cached_tokens) * 1000000 / NULLIF(SUM(prompt_tokens), 0) AS cached_ppm
FROM dbo.Usage WHERE kind = 'request' AND prompt_tokens IS NOT NULL AND cached_tokens IS NOT NULL GROUP BY model;

-- How much of the money rests on anything but what Azure reported.
SELECT usage_source, COUNT_BIG(*) AS records, SUM(cost_nano_usd) AS cost_nano_usd,
       CAST(CAST(SUM(cost_nano_usd) AS decimal(30, 0)) * 1000000 / NULLIF(SUM(SUM(cost_nano_usd)) OVER (), 0) AS bigint) AS share_ppm
FROM dbo.Spending GROUP BY usage_source ORDER BY cost_nano_usd DESC;

-- The twenty users that cost most.
SELECT TOP 20 product_id, [user], COUNT_BIG(*) AS records, SUM(COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0)) AS tokens, SUM(cost_nano_usd) AS cost_nano_usd
FROM dbo.Spending GROUP BY product_id, [user] ORDER BY cost_nano_usd DESC;

-- Where our books and Azure's bill drift apart, by day. azure-focus/ holds the
-- export "Cost and usage details (FOCUS)" of Cost Management as Parquet.
WITH ours AS (
    SELECT day, CAST(SUM(COALESCE(list_cost_nano_usd, cost_nano_usd)) AS decimal(28, 9)) * CAST(0.000000001 AS decimal(10, 9)) AS usd
    FROM dbo.Spending WHERE kind <> 'write_off' GROUP BY day
), azure AS (
    SELECT CAST(ChargePeriodStart AS date) AS day, SUM(CAST(ListCost AS decimal(38, 18))) AS usd
    FROM OPENROWSET(BULK 'azure-focus/**', DATA_SOURCE = 'CostgateLake', FORMAT = 'PARQUET') AS f
    WHERE ChargeCategory = 'Usage' AND BillingCurrency = 'USD'
      AND ServiceName IN ('Azure OpenAI', 'Azure OpenAI Service', 'Cognitive Services', 'Azure AI services', 'Foundry Models')
    GROUP BY CAST(ChargePeriodStart AS date)
)
SELECT COALESCE(ours.day, azure.day) AS day, ours.usd AS ours_usd, azure.usd AS azure_usd, COALESCE(ours.usd, 0) - COALESCE(azure.usd, 0) AS drift_usd
FROM ours FULL OUTER JOIN azure ON ours.day = azure.day ORDER BY day;
