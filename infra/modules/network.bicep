// A virtual network with a subnet that the app's traffic leaves through, one for
// private endpoints, and the private DNS zones.

@description('Suffix of the names.')
param suffix string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Address space; a /25 or larger. The first quarter is for the app, the second for private endpoints.')
param addressPrefix string

@description('Who the app\'s subnet is delegated to.')
@allowed(['Microsoft.App/environments', 'Microsoft.Web/serverFarms'])
param delegation string

@description('Private DNS zones to make.')
param zones string[]

var bits = int(split(addressPrefix, '/')[1]) + 2

resource rules 'Microsoft.Network/networkSecurityGroups@2025-05-01' = {
  name: 'nsg-${suffix}'
  location: location
  tags: tags
}

resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = {
  name: 'vnet-${suffix}'
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [addressPrefix]
    }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, bits, 0)
          // Azure Monitor has no private endpoint here, nor has an Azure OpenAI
          // account that existed before.
          defaultOutboundAccess: true
          delegations: [
            {
              name: 'app'
              properties: {
                serviceName: delegation
              }
            }
          ]
          networkSecurityGroup: {
            id: rules.id
          }
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, bits, 1)
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: rules.id
          }
        }
      }
    ]
  }

  resource app 'subnets' existing = {
    name: 'app'
  }

  resource endpoints 'subnets' existing = {
    name: 'endpoints'
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for item in zones: {
    name: item
    location: 'global'
    tags: tags
  }
]

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (item, i) in zones: {
    parent: zone[i]
    name: network.name
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: network.id
      }
    }
  }
]

output appSubnetId string = network::app.id
output endpointSubnetId string = network::endpoints.id
