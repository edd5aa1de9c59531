// An Azure OpenAI account in another subscription, with the alerts of the second
// step. Nothing is kept warm.
using '../main.bicep'

param alwaysReadyInstances = 0
param existingOpenAiResourceId = '/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/rg-models/providers/Microsoft.CognitiveServices/accounts/models'
param deployments = [
  {
    name: 'chat'
    model: 'gpt-4.1'
    version: '2025-04-14'
    sku: 'DataZoneStandard'
  }
]
param alertsEnabled = true
param budgetAmount = 5000
param budgetName = 'models'
param budgetStartDate = '2026-11-01'
param thisMonth = '2026-12-01'
