package pricing

import (
	"errors"
	"fmt"
	"strings"
)

// Deployment is what an Azure OpenAI deployment runs, and how it is sold.
type Deployment struct {
	Model   string // as written; [Book.Lookup] normalises it
	Version string // empty: unknown
	SKU     string // as ARM spells it; never empty
	Region  string // lower case without blanks; empty: unknown
}

// ParseDeployments reads the JSON text of the setting DEPLOYMENTS:
//
//	{"gpt4o":{"model":"gpt-4o","version":"2024-11-20","sku":"GlobalStandard","region":"eastus"}}
//
// Only model is required; sku is GlobalStandard if left out. A DataZone sku needs
// a region that is in a data zone. The names in the result are in lower case. An empty text is no deployments. Errors name the
// entry, the field and what to write instead.
func ParseDeployments(text string) (map[string]Deployment, error) {
	deployments := map[string]Deployment{}
	if strings.TrimSpace(text) == "" {
		return deployments, nil
	}
	if len(text) > FileBytesMax {
		return nil, fmt.Errorf("deployments: %d bytes; at most %d are read", len(text), FileBytesMax)
	}
	r := newReader([]byte(text))
	r.object("deployments", func(name string) {
		key := strings.ToLower(strings.TrimSpace(name))
		if _, ok := deployments[key]; ok {
			r.fail(name, "is given twice (letter case does not matter); keep one")
		}
		if key == "" {
			r.fail("deployments", "a deployment has an empty name")
		}
		if len(deployments) >= EntriesMax {
			r.fail("deployments", "more than %d entries", EntriesMax)
		}
		deployments[key] = r.deployment(name)
	})
	if err := r.end(); err != nil {
		return nil, errors.New("deployments: " + err.Error())
	}
	return deployments, nil
}

func (r *reader) deployment(name string) Deployment {
	d := Deployment{}
	r.object(name, func(field string) {
		path := join(name, field)
		switch field {
		case "model":
			d.Model = r.text(path)
		case "version":
			d.Version = r.text(path)
		case "sku":
			d.SKU = r.sku(path)
		case "region":
			d.Region = normalizeRegion(r.text(path))
		default:
			r.fail(path, "unknown field; the fields are model, version, sku, region")
		}
	})
	if d.Model == "" {
		r.fail(name, `model is missing; add for example "model":"gpt-4o"`)
	}
	if d.SKU == "" {
		d.SKU = skuGlobalStandard
	}
	if inZone(d.SKU) && zoneOf(d.Region) == "" {
		r.fail(join(name, "region"), "%q is in no data zone, and %s has a price by zone; name an Azure region of a zone, "+
			`or the zone itself ("us" or "eu"), or another sku`, d.Region, d.SKU)
	}
	_, dated := NormalizeModel(d.Model)
	version := strings.TrimPrefix(strings.ToLower(d.Version), "turbo-")
	if dated != "" && version != "" && version != dated && !FineTuned(d.Model) { // a fine-tuned model counts its own versions
		r.fail(join(name, "version"), "is %q, but model %q is of %s; drop the date from model, or correct one of them", d.Version, d.Model, dated)
	}
	return d
}
