package retail

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// ARMBytesMax is the size of the largest list of models read.
const ARMBytesMax = 64 << 20

// armMeters are the names of Azure Resource Manager's billing meters. The names
// do not tell the context band or the service tier; those come from the retail
// name of the meter.
var armMeters = map[string]string{
	"contexttoken": "in", "nocachedcontexttoken": "in", "cachedcontexttoken": "in_cached", "generatedtoken": "out", "totaltoken": "in",
}

// armUse is what a model uses a meter for.
type armUse struct {
	model, version string
	mode           pricing.Mode // of a model that no book knows
	sku, meter     string
}

// ARM is the list of the meters that models are billed by.
type ARM struct {
	uses map[string][]armUse // by meterId, in lower case
	// Models is how many models of OpenAI were listed.
	Models int
}

type armModel struct {
	Model struct {
		Format  string   `json:"format"`
		Name    string   `json:"name"`
		Version string   `json:"version"`
		SKUs    []armSKU `json:"skus"`
	} `json:"model"`
}

type armSKU struct {
	Name  string    `json:"name"`
	Cost  []armCost `json:"cost"`
	Costs []armCost `json:"costs"` // what some SDKs call it
}

type armCost struct {
	Name    string `json:"name"`
	MeterID string `json:"meterId"`
}

// ParseARM reads what `az rest` gets from .../providers/Microsoft.CognitiveServices/locations/{location}/models,
// or `az cognitiveservices model list` prints: {"value":[...]} or the bare list.
// Lists of several locations are put together by [ARM.Add].
func ParseARM(data []byte) (*ARM, error) {
	if len(data) > ARMBytesMax {
		return nil, fmt.Errorf("list of models: %d bytes; at most %d are read", len(data), ARMBytesMax)
	}
	var list []armModel
	if err := json.Unmarshal(data, &list); err != nil {
		var wrapped struct {
			Value    []armModel `json:"value"`
			NextLink string     `json:"nextLink"`
		}
		if err := json.Unmarshal(data, &wrapped); err != nil || wrapped.Value == nil {
			return nil, errors.New(`list of models: must be {"value":[...]} or [...], as Azure Resource Manager gives it`)
		}
		if wrapped.NextLink != "" {
			return nil, errors.New("list of models: it has a nextLink, so it is not all; fetch the other pages too")
		}
		list = wrapped.Value
	}
	a := &ARM{uses: map[string][]armUse{}}
	for i := range list {
		a.read(&list[i])
	}
	if a.Models == 0 {
		return nil, errors.New("list of models: none is of OpenAI")
	}
	return a, nil
}

func (a *ARM) read(m *armModel) {
	if m.Model.Format != "" && m.Model.Format != "OpenAI" || m.Model.Name == "" {
		return
	}
	a.Models++
	name, dated := pricing.NormalizeModel(m.Model.Name)
	version := strings.ToLower(m.Model.Version)
	if dated != "" {
		version = dated
	}
	if rest, ok := strings.CutPrefix(version, "turbo-"); ok && name == "gpt-4" { // as the price book has it
		name, version = "gpt-4-turbo", rest
	}
	for _, sku := range m.Model.SKUs {
		if strings.Contains(sku.Name, "Provisioned") {
			continue
		}
		for _, cost := range slices.Concat(sku.Cost, sku.Costs) {
			meter, ok := armMeters[strings.ToLower(cost.Name)]
			if !ok || cost.MeterID == "" {
				continue
			}
			use := armUse{name, version, pricing.ModeChat, sku.Name, meter}
			if strings.EqualFold(cost.Name, "TotalToken") {
				use.mode = pricing.ModeEmbedding
			}
			id := strings.ToLower(cost.MeterID)
			if !slices.Contains(a.uses[id], use) {
				a.uses[id] = append(a.uses[id], use)
			}
		}
	}
}

// Add adds what another list says: models differ by location.
func (a *ARM) Add(other *ARM) {
	for id, uses := range other.uses {
		for _, use := range uses {
			if !slices.Contains(a.uses[id], use) {
				a.uses[id] = append(a.uses[id], use)
			}
		}
	}
	a.Models += other.Models
}
