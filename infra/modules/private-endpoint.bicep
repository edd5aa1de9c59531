// A private endpoint with its name in a private DNS zone.

@description('Name of the endpoint.')
@minLength(2)
@maxLength(64)
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Resource id of what is reached by it.')
param targetId string

@description('Which part of that: blob, queue, table, namespace, account.')
param group string

@description('Resource id of the subnet.')
param subnetId string

@description('Name of the private DNS zone.')
param zoneName string

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' existing = {
  name: zoneName
}

resource endpoint 'Microsoft.Network/privateEndpoints@2025-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    customNetworkInterfaceName: 'nic-${name}'
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: group
        properties: {
          groupIds: [group]
          privateLinkServiceId: targetId
        }
      }
    ]
  }

  resource names 'privateDnsZoneGroups' = {
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: group
          properties: {
            privateDnsZoneId: zone.id
          }
        }
      ]
    }
  }
}
