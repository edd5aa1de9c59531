package pricing

import (
	"slices"
	"strings"
)

const (
	skuGlobalStandard   = "GlobalStandard"
	skuDataZoneStandard = "DataZoneStandard"
	skuStandard         = "Standard"
	zonePrefix          = "DataZone"
	batchSuffix         = "Batch"
	provisionedSuffix   = "ProvisionedManaged"
)

// skus are the deployment types of Azure OpenAI, as ARM spells them.
var skus = []string{
	skuGlobalStandard, skuDataZoneStandard, skuStandard, "GlobalBatch", "DataZoneBatch",
	"GlobalProvisionedManaged", "DataZoneProvisionedManaged", "ProvisionedManaged", "DeveloperTier",
}

// canonicalSKU finds a deployment type whatever the case of its letters.
func canonicalSKU(s string) (string, bool) {
	i := slices.IndexFunc(skus, func(known string) bool { return strings.EqualFold(known, s) })
	if i < 0 {
		return "", false
	}
	return skus[i], true
}

// inZone tells whether a deployment type has the prices of a data zone.
func inZone(sku string) bool { return strings.HasPrefix(sku, zonePrefix) }

// Provisioned tells whether a deployment type is paid by the hour, used or not.
func Provisioned(sku string) bool {
	known, _ := canonicalSKU(sku)
	return strings.HasSuffix(known, provisionedSuffix)
}

// SpilloverSKU is the deployment type whose prices the requests have that a
// provisioned deployment hands on: GlobalStandard for GlobalProvisionedManaged,
// and so on. Other types are their own.
func SpilloverSKU(sku string) string {
	known, ok := canonicalSKU(sku)
	if !ok {
		return sku
	}
	scope, _ := strings.CutSuffix(known, provisionedSuffix)
	if scope == known {
		return known
	}
	return scope + skuStandard
}

// sku reads a deployment type. An empty one is left empty.
func (r *reader) sku(path string) string {
	s := r.text(path)
	if s == "" || r.err != nil {
		return ""
	}
	known, ok := canonicalSKU(s)
	if !ok {
		r.fail(path, "unknown sku %q; the skus are %s", s, strings.Join(skus, ", "))
	}
	return known
}

// normalizeRegion makes "East US 2" into "eastus2".
func normalizeRegion(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }

// The regions of the two data zones. A region that is in neither has no data-zone price.
var zones = map[string][]string{
	"us": {
		"eastus", "eastus2", "centralus", "northcentralus", "southcentralus", "westcentralus", "westus", "westus2", "westus3",
	},
	"eu": {
		"austriaeast", "belgiumcentral", "denmarkeast", "finlandcentral", "francecentral", "francesouth", "germanynorth",
		"germanywestcentral", "greececentral", "italynorth", "northeurope", "polandcentral", "spaincentral", "swedencentral",
		"swedensouth", "westeurope",
	},
}

// zoneByRegion has the zones themselves too.
var zoneByRegion = func() map[string]string {
	all := map[string]string{}
	for zone, regions := range zones {
		for _, region := range append(regions, zone) {
			all[region] = zone
		}
	}
	return all
}()

// zoneOf is the data zone of a region (or the zone itself), empty if there is none.
func zoneOf(region string) string { return zoneByRegion[region] }
