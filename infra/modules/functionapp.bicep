// The function app and its plan: Flex Consumption, or Premium.

import { deployment } from 'deployment.bicep'

@description('Name of the app.')
@minLength(2)
@maxLength(60)
param name string

@description('Name of the plan.')
@minLength(1)
@maxLength(60)
param planName string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('How the app is paid for and scaled.')
@allowed(['flex', 'premium'])
param hostingPlan string

@description('Flex: memory of an instance.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int

@description('Most instances.')
@minValue(1)
@maxValue(1000)
param maximumInstances int

@description('Flex: instances kept warm for requests. Premium: instances that always run.')
@minValue(0)
param readyInstances int

@description('Flex: requests that an instance serves at a time.')
@minValue(1)
@maxValue(1000)
param concurrency int

@description('Premium: size of an instance.')
@allowed(['EP1', 'EP2', 'EP3'])
param premiumSku string

@description('URL of the container that the package is in.')
param packageContainerUrl string

@description('Premium: name of the package in its container.')
param packageName string

@description('Resource id of the identity that the app has.')
param identityId string

@description('Client id of that identity.')
param clientId string

@description('Blob endpoint of the host\'s storage.')
param hostBlobEndpoint string

@description('Queue endpoint of the host\'s storage.')
param hostQueueEndpoint string

@description('Table endpoint of the host\'s storage.')
param hostTableEndpoint string

@description('Connection string of Application Insights. It holds no secret: keys are off.')
param insightsConnectionString string

@description('The gateway\'s settings, but for DEPLOYMENTS.')
param gatewaySettings object

@description('What the deployments are. An empty list: none is told to the gateway.')
param deployments deployment[]

@description('Region of the Azure OpenAI account: part of the price of some deployments.')
param openAiLocation string

@description('Resource id of the subnet for outbound traffic; empty: none.')
param subnetId string

var flex = hostingPlan == 'flex'

var hostSettings = {
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${clientId};Authorization=AAD'
  AzureWebJobsStorage__blobServiceUri: hostBlobEndpoint
  AzureWebJobsStorage__queueServiceUri: hostQueueEndpoint
  AzureWebJobsStorage__tableServiceUri: hostTableEndpoint
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: clientId
  // The Azure SDK in the gateway has these from its environment. With them it
  // takes the app's identity at once, instead of trying its chain.
  AZURE_CLIENT_ID: clientId
  AZURE_TOKEN_CREDENTIALS: 'ManagedIdentityCredential'
}

// Flex Consumption has these in functionAppConfig, and refuses them as settings.
var premiumSettings = {
  FUNCTIONS_EXTENSION_VERSION: '~4'
  FUNCTIONS_WORKER_RUNTIME: 'custom'
  // By URL, because a package on the plan's own share would need the account's
  // key. Each instance fetches it with the app's identity.
  WEBSITE_RUN_FROM_PACKAGE: '${packageContainerUrl}/${packageName}'
  WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID: identityId
}

var deploymentSettings = empty(deployments)
  ? {}
  : {
      DEPLOYMENTS: string(toObject(deployments, item => item.name, item => {
        model: item.model
        version: item.version
        sku: item.sku
        region: openAiLocation
      }))
    }

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: planName
  location: location
  tags: tags
  kind: flex ? 'functionapp' : 'elastic'
  sku: flex
    ? {
        name: 'FC1'
        tier: 'FlexConsumption'
      }
    : {
        name: premiumSku
        tier: 'ElasticPremium'
        capacity: max(readyInstances, 1)
      }
  properties: {
    // Linux.
    reserved: true
    maximumElasticWorkerCount: flex ? null : max(maximumInstances, readyInstances, 1)
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, {
    // azd's mark of what a service runs on.
    'azd-service-name': 'gateway'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    clientAffinityEnabled: false
    httpsOnly: true
    // For settings that are references to a key vault.
    keyVaultReferenceIdentity: identityId
    // Clients come from anywhere; they need a product key. Data services can be
    // private, the front door is not.
    publicNetworkAccess: 'Enabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    functionAppConfig: flex
      ? {
          runtime: {
            name: 'custom'
            version: '1.0'
          }
          deployment: {
            storage: {
              type: 'blobContainer'
              value: packageContainerUrl
              authentication: {
                type: 'UserAssignedIdentity'
                userAssignedIdentityResourceId: identityId
              }
            }
          }
          scaleAndConcurrency: {
            instanceMemoryMB: instanceMemoryMB
            maximumInstanceCount: maximumInstances
            alwaysReady: readyInstances == 0
              ? []
              : [
                  {
                    name: 'http'
                    instanceCount: readyInstances
                  }
                ]
            triggers: {
              http: {
                // Unset it is 16 with 2,048 MB. A stream occupies a place for
                // minutes and hardly any CPU, so that 16 of them would start an
                // instance, and each instance takes a share of every budget.
                perInstanceConcurrency: concurrency
              }
            }
          }
        }
      : null
    siteConfig: {
      appSettings: [
        for item in items(union(hostSettings, flex ? {} : premiumSettings, gatewaySettings, deploymentSettings)): {
          name: item.key
          value: item.value
        }
      ]
      ftpsState: 'Disabled'
      http20Enabled: true
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      remoteDebuggingEnabled: false
      // Premium has no stack for custom handlers: none is named.
      linuxFxVersion: flex ? null : ''
      functionAppScaleLimit: flex ? null : maximumInstances
      minimumElasticInstanceCount: flex ? null : max(readyInstances, 1)
      // An instance that answers nothing is replaced. Flex Consumption has its
      // own probes.
      healthCheckPath: flex ? null : '/health'
      vnetRouteAllEnabled: flex || empty(subnetId) ? null : true
    }
  }

  // Deployment is by Entra tokens; passwords of the publishing profile are off.
  resource ftp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: {
      allow: false
    }
  }

  resource scm 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }
}

output id string = app.id
output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
