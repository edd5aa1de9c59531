// Package pricing knows what Azure OpenAI's tokens cost.
//
// A [Book] is an immutable list of prices. [Builtin] is the one that comes with
// the program, [Parse] reads a user's additions and [Book.With] lays them over
// it. [Book.Lookup] finds the [Entry] for a model, a deployment type, a region
// and a time; the entry turns usage into a charge ([Entry.Charge]) and bounds
// what a request can cost before it is sent ([Entry.Bound]). [Book.Explain] says
// how a price was found.
//
// Invariants:
//   - No price is zero and none is guessed from a similar name. What is not in
//     the book is not found, and the caller has to refuse it or to fall back on
//     [Book.Dearest].
//   - Prices are integer pico-USD per unit, multipliers integer parts per
//     million; a charge is rounded once, up.
//   - Bound(p, o, items) is at least what Charge charges for any usage of at most
//     p prompt and o completion tokens and at most these items. One exception:
//     audio tokens of a model that has no audio prices in any band.
//
// Not done here: what is paid by the hour (provisioned capacity, the hosting of
// fine-tuned models) has no price, and nothing is fetched from the network.
package pricing
