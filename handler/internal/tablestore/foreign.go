package tablestore

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// Foreign reads a table that another program wrote: all of its rows, in the
// order of their keys, each as the JSON object that the service sends, with the
// named columns and no others. A row without one of them has null there, or
// nothing. It only reads; a table that is not there is an error with the code
// TableNotFound, not a table that is made.
//
// An error from visit ends the reading and is returned as it is. Other errors
// hold no address and no secret. A row that is written meanwhile may be seen or
// not.
func Foreign(ctx context.Context, o Options, columns string, visit func(object []byte) error) error {
	s, err := Open(o)
	if err != nil {
		return err
	}
	pager := s.client.NewListEntitiesPager(&aztables.ListEntitiesOptions{Select: to.Ptr(columns)})
	for pager.More() {
		answer, err := pager.NextPage(s.reading(ctx))
		if err != nil {
			return unavailable("read table "+o.Table, err)
		}
		for _, object := range answer.Entities {
			if err := visit(object); err != nil {
				return err
			}
		}
	}
	return nil
}
