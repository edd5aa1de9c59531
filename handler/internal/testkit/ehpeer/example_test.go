package ehpeer_test

import (
	"context"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/costgate/costgate/handler/internal/testkit/ehpeer"
)

// A batch is stored, but its sender is cut off before it hears of that. It sends
// again, as the SDK does by itself, and the hub has everything twice.
func Example() {
	peer, err := ehpeer.Start(ehpeer.Options{})
	if err != nil {
		panic(err)
	}
	defer peer.Close()
	client, err := azeventhubs.NewProducerClientFromConnectionString(peer.ConnectionString(), "", &azeventhubs.ProducerClientOptions{
		RetryOptions: azeventhubs.RetryOptions{RetryDelay: time.Millisecond},
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	defer client.Close(ctx)

	peer.Fail(ehpeer.DropAfter, 1)
	batch, err := client.NewEventDataBatch(ctx, nil)
	if err != nil {
		panic(err)
	}
	if err := batch.AddEventData(&azeventhubs.EventData{Body: []byte("hello")}, nil); err != nil {
		panic(err)
	}
	fmt.Println(client.SendEventDataBatch(ctx, batch, nil))
	events := peer.Events()
	for _, e := range events {
		fmt.Printf("%s %t\n", e.Body, e.MessageID == events[0].MessageID)
	}
	// Output:
	// <nil>
	// hello true
	// hello true
}
