metadata description = 'Costgate in an API Management service that is there already: named values, policy fragments, and an API that is forwarded to Proxy.'

targetScope = 'resourceGroup'

@description('Name of the API Management service, in this resource group.')
@minLength(1)
@maxLength(50)
param serviceName string

@description('URL of the gateway, without a slash at its end, for example https://my-app.azurewebsites.net.')
@minLength(9)
@maxLength(256)
param gatewayUrl string

@description('Make the API that is forwarded to Proxy. Without it only the fragments and their named values are registered.')
param createApi bool = true

@description('Name of the API to make.')
@minLength(1)
@maxLength(80)
param apiName string = 'costgate'

@description('URL suffix of the API. Azure OpenAI clients add /openai to their endpoint, so the default serves them unchanged.')
@minLength(1)
@maxLength(400)
param apiPath string = 'openai'

@description('Ask for a subscription key, in the api-key header as Azure OpenAI clients send it. Without it clients send a product key, as api-key or bearer token, and the gateway alone checks it.')
param subscriptionRequired bool = true

@description('Register the fragments that check before and update after a request that API Management forwards itself, as the predecessor did.')
param registerCheckFragments bool = false

@description('The gateway\'s function key, which the check fragments send. Give it, or functionKeySecretUri.')
@secure()
@maxLength(256)
param functionKey string = ''

@description('In place of functionKey: the Key Vault secret that has it, https://<vault>.vault.azure.net/secrets/<name>. The service\'s identity must be allowed to read it (role Key Vault Secrets User).')
@maxLength(512)
param functionKeySecretUri string = ''

@description('Client id of a user-assigned identity of the service, to read that secret with. Empty: its system-assigned one.')
@maxLength(36)
param vaultIdentityClientId string = ''

// The paths that the fragments call. The tests call the gateway with the same file.
var paths = loadJsonContent('named-values.json')

// Each method forwards everything below the API's path; which of it is served, the gateway decides.
var methods = ['GET', 'POST', 'DELETE']

resource service 'Microsoft.ApiManagement/service@2024-05-01' existing = {
  name: serviceName
}

resource url 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = {
  parent: service
  name: 'CostgateURL'
  properties: {
    displayName: 'CostgateURL'
    value: '${gatewayUrl}${paths.CostgateURL}'
  }
}

resource queryUrl 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = if (registerCheckFragments) {
  parent: service
  name: 'QuotaQueryURL'
  properties: {
    displayName: 'QuotaQueryURL'
    value: '${gatewayUrl}${paths.QuotaQueryURL}'
  }
}

resource updateUrl 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = if (registerCheckFragments) {
  parent: service
  name: 'CustomQuotaUpdateURL'
  properties: {
    displayName: 'CustomQuotaUpdateURL'
    value: '${gatewayUrl}${paths.CustomQuotaUpdateURL}'
  }
}

resource queryKey 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = if (registerCheckFragments) {
  parent: service
  name: 'QuotaQueryKey'
  properties: {
    displayName: 'QuotaQueryKey'
    secret: true
    value: empty(functionKeySecretUri) ? functionKey : null
    keyVault: empty(functionKeySecretUri)
      ? null
      : {
          secretIdentifier: functionKeySecretUri
          identityClientId: empty(vaultIdentityClientId) ? null : vaultIdentityClientId
        }
  }
}

resource proxyFragment 'Microsoft.ApiManagement/service/policyFragments@2024-05-01' = {
  parent: service
  name: 'Costgate-Proxy'
  properties: {
    description: 'Sends a request through Costgate.'
    format: 'xml'
    value: loadTextContent('fragments/Costgate-Proxy.xml')
  }
  dependsOn: [url]
}

resource inboundFragment 'Microsoft.ApiManagement/service/policyFragments@2024-05-01' = if (registerCheckFragments) {
  parent: service
  name: 'Inbound-CustomRateLimiter'
  properties: {
    description: 'Asks Costgate whether a product has money left.'
    format: 'xml'
    value: loadTextContent('fragments/Inbound-CustomRateLimiter.xml')
  }
  dependsOn: [url, queryUrl, queryKey]
}

resource outboundFragment 'Microsoft.ApiManagement/service/policyFragments@2024-05-01' = if (registerCheckFragments) {
  parent: service
  name: 'Outbound-CustomRateLimiter'
  properties: {
    description: 'Tells Costgate what an answer used.'
    format: 'xml'
    value: loadTextContent('fragments/Outbound-CustomRateLimiter.xml')
  }
  dependsOn: [updateUrl, queryKey]
}

resource api 'Microsoft.ApiManagement/service/apis@2024-05-01' = if (createApi) {
  parent: service
  name: apiName
  properties: {
    displayName: 'Azure OpenAI through Costgate'
    description: 'Azure OpenAI\'s own API. Costgate checks the budget of the product, forwards and charges.'
    path: apiPath
    protocols: ['https']
    serviceUrl: '${gatewayUrl}/openai'
    subscriptionRequired: subscriptionRequired
    subscriptionKeyParameterNames: {
      header: 'api-key'
      query: 'subscription-key'
    }
  }
}

resource operations 'Microsoft.ApiManagement/service/apis/operations@2024-05-01' = [
  for method in methods: if (createApi) {
    parent: api
    name: 'all-${toLower(method)}'
    properties: {
      displayName: '${method} everything'
      method: method
      urlTemplate: '/*'
    }
  }
]

resource policy 'Microsoft.ApiManagement/service/apis/policies@2024-05-01' = if (createApi) {
  parent: api
  name: 'policy'
  properties: {
    format: 'xml'
    value: loadTextContent('policies/proxy.xml')
  }
  dependsOn: [proxyFragment]
}

@description('Where clients send their requests: the endpoint of an Azure OpenAI client is this without /openai.')
output proxyUrl string = '${service.properties.gatewayUrl}/${apiPath}'
