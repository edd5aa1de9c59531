// Private endpoints, Flex Consumption, alerts on a new account.
using '../main.bicep'

param environmentName = 'private'
param privateNetworking = true
param alertsEnabled = true
param budgetAmount = 1000
param thisMonth = '2026-11-01'
