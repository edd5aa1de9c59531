// What main.bicep makes by default.
using '../main.bicep'

param thisMonth = '2026-11-01'
