// Application Insights on a Log Analytics workspace. Telemetry is accepted from
// identities with the role only, not from whoever knows the connection string.

import { roles } from 'roles.bicep'

@description('Suffix of the names.')
param suffix string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Days for which logs are kept. The first 31 are free.')
@minValue(30)
@maxValue(730)
param retentionDays int

@description('GB a day after which no more logs are taken in until the next day; -1: no limit.')
@minValue(-1)
param dailyCapGB int

@description('Object id of the identity that sends telemetry.')
param publisherPrincipalId string

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' = {
  name: 'log-${suffix}'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: retentionDays
    workspaceCapping: {
      dailyQuotaGb: dailyCapGB
    }
    features: {
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-${suffix}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
  }
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, publisherPrincipalId, roles.monitoringMetricsPublisher)
  scope: insights
  properties: {
    principalId: publisherPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(
      'Microsoft.Authorization/roleDefinitions',
      roles.monitoringMetricsPublisher
    )
  }
}

output workspaceId string = workspace.id
output connectionString string = insights.properties.ConnectionString
