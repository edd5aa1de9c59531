// Parameters of main.bicep, for az and for azd alike. What differs from place to
// place comes from the environment (azd env set NAME VALUE, or export); the rest
// is written here, and everything that is not is main.bicep's default. An empty
// value is an error: remove the variable instead.
using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'costgate')

param hostingPlan = readEnvironmentVariable('COSTGATE_PLAN', 'flex')
param privateNetworking = bool(readEnvironmentVariable('COSTGATE_PRIVATE', 'false'))
param packageUploaderPrincipalId = readEnvironmentVariable('AZURE_PRINCIPAL_ID', '')
param packageUploaderPrincipalType = readEnvironmentVariable('AZURE_PRINCIPAL_TYPE', 'User')

// An account that exists: its resource id. Then list its deployments below.
param existingOpenAiResourceId = readEnvironmentVariable('COSTGATE_OPENAI_ID', '')
param openAiLocation = readEnvironmentVariable('COSTGATE_OPENAI_LOCATION', '')
param deployments = [
  {
    name: 'gpt-5-mini'
    model: 'gpt-5-mini'
    version: '2025-08-07'
    sku: 'GlobalStandard'
    capacity: 50
  }
]

// The second step, when the package is deployed.
param alertsEnabled = bool(readEnvironmentVariable('COSTGATE_ALERTS', 'false'))
param budgetAmount = int(readEnvironmentVariable('COSTGATE_BUDGET', '0'))
param budgetName = readEnvironmentVariable(
  'COSTGATE_BUDGET_NAME',
  readEnvironmentVariable('AZURE_ENV_NAME', 'costgate')
)
param budgetStartDate = readEnvironmentVariable('COSTGATE_BUDGET_START', '')
