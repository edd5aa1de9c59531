// Premium behind private endpoints; Azure OpenAI is behind something else.
using '../main.bicep'

param environmentName = 'premium'
param hostingPlan = 'premium'
param privateNetworking = true
param openAiEndpoint = 'https://models.example.com/base'
param openAiLocation = 'westeurope'
// No budget: there is no account here whose cost could be asked for.
param alertsEnabled = true
param budgetAmount = 1000
param thisMonth = '2026-11-01'
