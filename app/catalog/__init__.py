"""
The models we sell: what each takes as input, what it costs, and where that price comes from.

Models are data. Each file in `models/` is a family; operators add a folder of their own in the same
shape (`format.json` describes it). `catalog.load` reads them once and reports every fault of a file
in plain words; a `Model` then tells every fault of an order's input, and `billing.prices` what it costs.
"""
