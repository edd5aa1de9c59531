// Package retail makes a price book out of the Azure Retail Prices API.
//
// A [Client] reads the public price list, page by page and completely or not
// at all. [Catalog.Parse] reads what a meter's name says: model, version,
// deployment type, band, class of token. [ParseARM] reads Azure Resource
// Manager's list of models, whose meter ids need no such reading and so win.
// [Build] puts both together into a file that [pricing.Parse] accepts, and a
// [Report] of what it did not understand and of what changed.
//
// Invariants:
//   - Nothing is guessed. A meter whose model, version, deployment type, class
//     or unit is not certain is reported and not written; a name is never
//     matched to the model of a shorter name.
//   - Prices are read as decimal text and converted in integers. A price of
//     zero is refused, as is one that is no whole number of pico-USD per unit
//     (but for hours: the price of a second is rounded up).
//   - What the API does not name and would change other prices by its absence
//     (long-context prices, those of the cache) is kept in its ratio to the usual
//     price, as in the program's book, and reported.
//
// Sources: learn.microsoft.com/rest/api/cost-management/retail-prices for the
// API; the meaning of meter names from published meter lists, as
// docs/PRICES-REFRESH.md tells.
package retail
